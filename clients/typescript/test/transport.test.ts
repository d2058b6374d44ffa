import type { ServerResponse } from "node:http";
import { expect, test } from "vitest";
import { BpmgateError, createClient, isTransient } from "../src/index.js";
import { bodyOf, problem, serve } from "./support/server.js";

const JSON_TYPE = { "Content-Type": "application/json" };

function refuse(response: ServerResponse, code: string, status: number) {
  response.writeHead(status, { "Content-Type": "application/problem+json" }).end(problem(code, status));
}

/** Refuses these tokens with this code; tells which tokens and bodies came. */
async function tokenServer(refused: string[], code = "token_expired") {
  const seen: { token: string | undefined; body: string }[] = [];
  const baseUrl = await serve(async (request, response) => {
    const token = request.headers.authorization?.replace("Bearer ", "");
    seen.push({ token, body: await bodyOf(request) });
    if (token && refused.includes(token)) {
      refuse(response, code, 401);
    } else {
      response.writeHead(200, JSON_TYPE).end("[]");
    }
  });
  return { baseUrl, seen };
}

/** Gives these tokens one after the other; tells what it was asked for. */
function tokens(...given: (string | null)[]) {
  const asked: unknown[] = [];
  const getToken = async (options?: { skipCache?: boolean }) => {
    asked.push(options);
    return given[asked.length - 1] ?? null;
  };
  return { asked, getToken };
}

async function failure(promise: Promise<unknown>): Promise<BpmgateError> {
  const error = await promise.then(
    () => "it succeeded",
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(BpmgateError);
  return error as BpmgateError;
}

test("the token is asked for before each request", async () => {
  const { baseUrl, seen } = await tokenServer([]);
  const client = createClient({ baseUrl, getToken: tokens("one", "two").getToken });
  await client.listTasks();
  await client.listTasks();
  expect(seen.map(({ token }) => token)).toEqual(["one", "two"]);
});

test("without a token the request goes without Authorization", async () => {
  const { baseUrl, seen } = await tokenServer([]);
  await createClient({ baseUrl }).listTasks();
  await createClient({ baseUrl, getToken: () => null }).listTasks();
  expect(seen.map(({ token }) => token)).toEqual([undefined, undefined]);
});

test("an expired token is replaced once, and the body is sent again whole", async () => {
  const { baseUrl, seen } = await tokenServer(["old"]);
  const { getToken, asked } = tokens("old", "new");
  await createClient({ baseUrl, getToken }).startProcess("approval", { variables: { subject: "A desk" } });
  const body = '{"variables":{"subject":"A desk"}}';
  expect(seen).toEqual([
    { token: "old", body },
    { token: "new", body },
  ]);
  expect(asked).toEqual([undefined, { skipCache: true }]);
});

test("a second expired token is not replaced", async () => {
  const { baseUrl, seen } = await tokenServer(["old", "new"]);
  const { getToken } = tokens("old", "new", "newest");
  const error = await failure(createClient({ baseUrl, getToken }).listTasks());
  expect(error).toMatchObject({ code: "token_expired", status: 401, requestId: "r-1" });
  expect(seen.map(({ token }) => token)).toEqual(["old", "new"]);
});

test("a token that is refused for another reason is not replaced", async () => {
  const { baseUrl, seen } = await tokenServer(["bad"], "token_invalid");
  const { getToken, asked } = tokens("bad", "new");
  const error = await failure(createClient({ baseUrl, getToken }).listTasks());
  expect(error.code).toBe("token_invalid");
  expect([seen.length, asked.length]).toEqual([1, 1]);
});

test("where no new token can be had, the first answer counts", async () => {
  const { baseUrl, seen } = await tokenServer(["old"]);
  const error = await failure(createClient({ baseUrl, getToken: tokens("old").getToken }).listTasks());
  expect(error.code).toBe("token_expired");
  expect(seen.length).toBe(1);
});

test("a token getter that throws is told apart", async () => {
  const { baseUrl, seen } = await tokenServer([]);
  const cause = new Error("signed out");
  const client = createClient({ baseUrl, getToken: () => Promise.reject(cause) });
  expect(await failure(client.listTasks())).toMatchObject({ code: "token_unavailable", status: 0, cause });
  expect(seen).toEqual([]);
});

test("no connection is a network error", async () => {
  const baseUrl = await serve((request) => request.socket.destroy());
  const error = await failure(createClient({ baseUrl }).listTasks());
  expect(error).toMatchObject({ code: "network_error", status: 0 });
  expect(isTransient(error)).toBe(true);
});

test("an answer that breaks off is a network error", async () => {
  const baseUrl = await serve((_, response) => {
    response.writeHead(200, { ...JSON_TYPE, "Content-Length": "100" }).write("[{", () => response.destroy());
  });
  expect(await failure(createClient({ baseUrl }).listTasks())).toMatchObject({ code: "network_error", status: 0 });
});

test.each([
  ["a proxy's page", 503, "text/html", "<html>sorry</html>"],
  ["JSON that is no problem", 500, "application/json", '{"type":"RestException","code":0}'],
  ["an empty answer", 404, "text/plain", ""],
  ["a page instead of the API", 200, "text/html", "<html>app</html>"],
  ["broken JSON", 200, "application/json", "[{"],
])("%s is an unexpected answer", async (_, status, type, body) => {
  const baseUrl = await serve((_, response) => response.writeHead(status, { "Content-Type": type }).end(body));
  const error = await failure(createClient({ baseUrl }).listTasks());
  expect(error).toMatchObject({ code: "unexpected_answer", status, problem: undefined });
});

test("a code that this client does not know comes out as it is", async () => {
  const baseUrl = await serve((_, response) => refuse(response, "brand_new", 418));
  expect(await failure(createClient({ baseUrl }).listTasks())).toMatchObject({
    code: "brand_new",
    status: 418,
    detail: "This is brand_new.",
    message: "This is brand_new.",
    name: "BpmgateError",
  });
});

test.each([
  ["too_many_requests", 429, true],
  ["rate_limited", 429, true],
  ["engine_unreachable", 502, true],
  ["overloaded", 503, true],
  ["engine_timeout", 504, true],
  ["engine_rejected_credentials", 502, false],
  ["access_denied", 403, false],
  ["internal", 500, false],
])("whether %s is worth another try", (code, status, expected) => {
  expect(isTransient(new BpmgateError({ code, status, detail: "" }))).toBe(expected);
});

test("an abort rejects with the signal's reason, before the request and under way", async () => {
  const reason = new Error("not wanted any more");
  const ending = new AbortController();
  const baseUrl = await serve(() => ending.abort(reason));
  const client = createClient({ baseUrl });
  await expect(client.listTasks({}, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  await expect(client.listTasks({}, { signal: ending.signal })).rejects.toBe(reason);
});

test("an abort while the answer comes rejects with the signal's reason", async () => {
  const reason = new Error("not wanted any more");
  const ending = new AbortController();
  const baseUrl = await serve((_, response) => response.writeHead(200, JSON_TYPE).write("["));
  const client = createClient({
    baseUrl,
    fetch: async (request) => {
      const answer = await fetch(request);
      ending.abort(reason);
      return answer;
    },
  });
  await expect(client.listTasks({}, { signal: ending.signal })).rejects.toBe(reason);
});

test.each(["", ".", "..", undefined as unknown as string])("%j is refused as an id and nothing is sent", async (id) => {
  let asked = 0;
  const baseUrl = await serve((_, response) => {
    asked += 1;
    response.writeHead(200, JSON_TYPE).end("{}");
  });
  await expect(createClient({ baseUrl }).getTask(id)).rejects.toThrow(TypeError);
  expect(asked).toBe(0);
});

test("paths, queries and bodies are what the gateway expects", async () => {
  const seen: string[] = [];
  const baseUrl = await serve(async (request, response) => {
    const type = request.headers["content-type"] ?? "";
    seen.push([request.method, request.url, type, await bodyOf(request)].join(" ").trim());
    response.writeHead(200, JSON_TYPE).end("{}");
  });
  const client = createClient({ baseUrl: `${baseUrl}/`, prefix: "/bpm/" });
  await client.listTasks(
    { assignee: "a&b ü", unassigned: false, name: undefined, maxResults: 5 },
    { parameters: { taskVariables: "x_eq_1", priority: 50 } },
  );
  await client.getProcess("a key/ü");
  await client.getHealth();
  await client.claimTask("t");
  await client.claimTask("t", { userId: "u" });
  await client.deleteInstance("i", { reason: "twice" });
  await client.completeTask("t", { variables: { due: { value: null, type: "Date" }, gone: undefined, list: [1] } });
  expect(seen).toEqual([
    "GET /bpm/tasks?taskVariables=x_eq_1&priority=50&assignee=a%26b%20%C3%BC&unassigned=false&maxResults=5",
    "GET /bpm/processes/a%20key%2F%C3%BC",
    "GET /health",
    "POST /bpm/tasks/t/claim",
    'POST /bpm/tasks/t/claim application/json {"userId":"u"}',
    'DELETE /bpm/instances/i application/json {"reason":"twice"}',
    'POST /bpm/tasks/t/complete application/json {"variables":{"due":{"value":null,"type":"Date"},"list":[1]}}',
  ]);
});

test("another fetch may send the requests", async () => {
  const { baseUrl, seen } = await tokenServer([]);
  const urls: string[] = [];
  const client = createClient({
    baseUrl,
    fetch: (request) => {
      urls.push(request.url);
      return fetch(request);
    },
  });
  await client.listTasks();
  expect([urls, seen.length]).toEqual([[`${baseUrl}/api/tasks`], 1]);
});

test("nobody is sent elsewhere, with the variables or without", async () => {
  const seen: string[] = [];
  const stranger = await serve(async (request, response) => {
    seen.push(await bodyOf(request));
    response.writeHead(201, JSON_TYPE).end('{"id":"theirs"}');
  });
  for (const status of [302, 307]) {
    const baseUrl = await serve(async (_, response) => {
      response.writeHead(status, { Location: `${stranger}/api/processes/a/start` }).end();
    });
    const client = createClient({ baseUrl, getToken: tokens("one").getToken });
    const error = await failure(client.startProcess("a", { variables: { secret: "x" } }));
    expect(error.code).toBe("network_error");
  }
  expect(seen).toEqual([]);
});
