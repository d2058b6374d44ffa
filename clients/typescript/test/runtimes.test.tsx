// What the client needs of the place where it runs.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { createContext, Script } from "node:vm";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { renderToString } from "react-dom/server";
import { build } from "vite";
import { expect, inject, test } from "vitest";
import { createClient } from "../src/index.js";
import { createQueries } from "../src/queries.js";
import { BpmgateProvider, useProcesses } from "../src/react/index.js";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));

/** The whole client as one script. */
async function bundled(): Promise<string> {
  const built = await build({
    configFile: false,
    logLevel: "error",
    build: {
      write: false,
      minify: false,
      lib: { entry: `${PACKAGE}/src/index.ts`, name: "bpmgate", formats: ["iife"] },
    },
  });
  const [output] = [built].flat();
  if (!output || !("output" in output)) {
    throw new Error("expected an output");
  }
  return output.output[0].code;
}

test("loading it and making a client needs no global of the web or of Node", async () => {
  const script = new Script(`${await bundled()}; Object.keys(bpmgate.createClient({ baseUrl: "http://x" })).length`);
  expect(script.runInContext(createContext({}))).toBeGreaterThan(20);
});

test("it calls the gateway where there is fetch, and neither process nor window", async () => {
  const { fetch, Request, Headers, FormData, AbortController } = globalThis;
  const context = createContext({ fetch, Request, Headers, FormData, AbortController });
  const script = new Script(
    `${await bundled()}; bpmgate.createClient({ baseUrl: "${inject("gateway")}" }).getHealth()`,
  );
  expect(await script.runInContext(context)).toMatchObject({ status: "healthy" });
});

function Names() {
  const { data, isPending } = useProcesses({ key: "approval" });
  return <p>{isPending ? "loading" : data?.map(({ name }) => name).join()}</p>;
}

test("a server renders pages with it", async () => {
  const client = createClient({ baseUrl: inject("gateway"), getToken: () => inject("alice") });
  const queryClient = new QueryClient();
  const page = (
    <QueryClientProvider client={queryClient}>
      <BpmgateProvider client={client}>
        <Names />
      </BpmgateProvider>
    </QueryClientProvider>
  );
  expect(renderToString(page)).toContain("loading");
  await queryClient.prefetchQuery(createQueries(client).processes({ key: "approval" }));
  expect(renderToString(page)).toContain("Approval");
});

test("the package that is built has its three entries, and two of them need no React", () => {
  const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: PACKAGE, encoding: "utf8" });
  run("npm", "run", "build");
  const list = (entry: string) => `Object.keys(await import("${entry}")).sort().join(" ")`;
  const told = run(
    process.execPath,
    "--input-type=module",
    "--eval",
    `console.log([${list("@bpmgate/client")}, ${list("@bpmgate/client/queries")}, (${list("@bpmgate/client/react")}).includes("useCamundaAPI")].join("\\n"))`,
  );
  expect(told.trim().split("\n")).toEqual([
    "BpmgateError createClient isTransient paginate",
    "createQueries keys",
    "true",
  ]);
  const files: { path: string }[] = JSON.parse(run("npm", "pack", "--dry-run", "--json", "--ignore-scripts"))[0].files;
  const paths = files.map(({ path }) => path);
  expect(paths).toEqual(expect.arrayContaining(["README.md", "LICENSE", "package.json", "dist/react/index.d.ts"]));
  expect(paths.filter((path) => !/^(dist|src)\//.test(path)).sort()).toEqual(["LICENSE", "README.md", "package.json"]);
});
