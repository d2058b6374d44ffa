import { createServer, type IncomingMessage, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** A server that answers so until the test ends; gives its address. */
export async function serve(answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const chunk of request.setEncoding("utf8")) {
    body += chunk;
  }
  return body;
}

export function problem(code: string, status: number) {
  return JSON.stringify({
    type: `urn:bpmgate:problem:${code}`,
    title: code,
    status,
    detail: `This is ${code}.`,
    error: code,
    code,
    timestamp: "2026-11-24T10:20:30.000Z",
    requestId: "r-1",
  });
}
