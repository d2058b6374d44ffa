// Runs the real gateway for all tests: `bpmgate demo` with its engine and issuer, and a second one before the same
// engine, on which everybody is an operator.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    /** The gateway of the demo, where everybody has the profile `user`. */
    gateway: string;
    /** A gateway before the same engine, where everybody has the profile `operator`. */
    operators: string;
    alice: string;
    bob: string;
  }
}

const BINARY = process.env.BPMGATE_BIN ?? fileURLToPath(new URL("../../../../target/debug/bpmgate", import.meta.url));

export default async function setup(project: TestProject) {
  if (!existsSync(BINARY)) {
    throw new Error(`${BINARY} does not exist: run \`cargo build\`, or set BPMGATE_BIN to the gateway's binary`);
  }
  const folder = await mkdtemp(join(tmpdir(), "bpmgate-client-"));
  const started: ChildProcess[] = [];
  try {
    const demo = run(process.env.BPMGATE_ENGINE ? ["demo", "--engine", process.env.BPMGATE_ENGINE] : ["demo"]);
    started.push(demo);
    const text = await told(demo, "stdout", /# Deploying/);
    const gateway = found(text, /gateway {2}(http\S+)/);
    const alice = found(text, /ALICE='Authorization: Bearer ([^']+)'/);

    const config = join(folder, "config.toml");
    await writeFile(config, operatorsConfig(found(text, /engine {3}(http\S+)/), alice));
    const second = run(["serve", "--config", config]);
    started.push(second);
    const operators = found(await told(second, "stderr", /listening.*\n/), /address=(\S+:\d+)/);

    project.provide("gateway", gateway);
    project.provide("operators", `http://${operators}`);
    project.provide("alice", alice);
    project.provide("bob", found(text, /BOB='Authorization: Bearer ([^']+)'/));
  } catch (error) {
    await end();
    throw error;
  }
  return end;

  async function end() {
    for (const child of started) {
      child.kill();
    }
    await rm(folder, { recursive: true, force: true });
  }
}

function operatorsConfig(engine: string, token: string) {
  const { iss, aud } = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
  return `
[server]
listen = "127.0.0.1:0"
[admin]
listen = ""
[engine]
url = "${engine}"
[[issuers]]
preset = "oidc"
issuer = "${iss}"
audience = ["${aud}"]
[access]
default = "operator"
`;
}

function run(args: string[]) {
  return spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NO_COLOR: "1" } });
}

/** What the process has written when it matches. */
function told(child: ChildProcess, stream: "stdout" | "stderr", pattern: RegExp) {
  return new Promise<string>((resolve, reject) => {
    let text = "";
    for (const name of ["stdout", "stderr"] as const) {
      child[name]?.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
        if (name === stream && pattern.test(text)) {
          resolve(text);
        }
      });
    }
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      // Told also after it was ready: what fails then fails because of this.
      if (!child.killed) {
        console.error(`${BINARY} ended with ${code ?? signal}:\n${text}`);
      }
      reject(new Error(`${BINARY} ended with ${code ?? signal}`));
    });
  });
}

function found(text: string, pattern: RegExp): string {
  const value = pattern.exec(text)?.[1];
  if (!value) {
    throw new Error(`expected ${pattern} in:\n${text}`);
  }
  return value;
}
