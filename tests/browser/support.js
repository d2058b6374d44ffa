// What the tests start: an engine, the demo, a gateway, a browser. All of it ends with the test that asked for it.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const ROOT = resolve(import.meta.dirname, "../..");
const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, "target");
const BPMGATE = process.env.BPMGATE ?? join(TARGET, "debug/bpmgate");

/** Starts a program, and gives the first thing that `find` finds in a line of what it prints. */
async function start(context, command, args, find, options = {}) {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], ...options });
  let said = "";
  const ended = new Promise((resolve) => child.once("exit", (...how) => resolve(how)));
  context.after(async () => {
    const killed = child.kill();
    const [code, signal] = await ended;
    assert.ok(killed, `${command} ended before the test did, with ${signal ?? code}:\n${said}`);
  });
  return new Promise((found, failed) => {
    child.once("error", failed);
    ended.then(([code, signal]) => failed(new Error(`${command} ended with ${signal ?? code}:\n${said}`)));
    for (const stream of [child.stdout, child.stderr])
      createInterface({ input: stream }).on("line", (line) => {
        said += `${line}\n`;
        const result = find(line);
        if (result) found(result);
      });
  });
}

/** A real Operaton, from the project of the acceptance tests and out of their cache. */
async function operaton(context) {
  const project = join(ROOT, "tests/engine/operaton");
  const files = ["pom.xml", "src/main/resources/application.yaml", "src/main/java/engine/Engine.java"];
  const sources = files.map((file) => file + readFileSync(join(project, file), "utf8")).join("");
  const hash = createHash("sha256").update(sources).digest().subarray(0, 12).toString("base64url");
  const cache = process.env.BPMGATE_ENGINE_CACHE ?? join(TARGET, "tmp/engine");
  const jar = join(cache, `engine-${hash}.jar`);
  if (!existsSync(jar)) {
    mkdirSync(cache, { recursive: true });
    const copy = mkdtempSync(join(cache, "build-"));
    cpSync(project, copy, { recursive: true });
    const maven = spawnSync("mvn", ["--batch-mode", "--quiet", "-DskipTests", "package"], { cwd: copy, encoding: "utf8" });
    assert.equal(maven.status, 0, maven.stdout);
    renameSync(join(copy, "target/engine.jar"), jar);
    rmSync(copy, { recursive: true });
  }
  const options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", jar];
  const address = await start(context, "java", options, (line) => /^engine listening on (.*)/.exec(line)?.[1]);
  const url = `http://${address}/engine-rest`;
  const Authorization = `Basic ${Buffer.from("demo:demo").toString("base64")}`;
  await until("the engine", async () => (await fetch(`${url}/version`, { headers: { Authorization } })).ok);
  return url;
}

/** Runs the demo before the engine that `ENGINE` asks for, or with one in memory where `inMemory` is set. */
export async function startDemo(context, { inMemory = false } = {}) {
  const kind = process.env.ENGINE ?? "memory";
  assert.match(kind, /^(memory|operaton)$/, "ENGINE is memory or operaton");
  const given = kind === "operaton" && !inMemory ? ["--engine", await operaton(context)] : [];
  const cwd = directory(context);
  const told = {};
  await start(
    context,
    BPMGATE,
    ["demo", ...given],
    (line) => {
      const [, name, value] = /^ {2}(page|gateway|engine) +(.*)/.exec(line) ?? [];
      if (name) told[name] = value;
      return told.engine;
    },
    { cwd },
  );
  assert.match(told.page, /^http:/, "the page is built in: `make test-browser` does it");
  const config = await (await fetch(`${told.page}config.json`)).json();
  return { ...told, ...config };
}

/** Runs a gateway of its own before the demo's engine, for people of the demo's issuer. */
export async function startGateway(context, demo, { origins = [], password = "demo" }) {
  const cwd = directory(context);
  const list = origins.map((origin) => JSON.stringify(origin)).join();
  writeFileSync(
    join(cwd, "config.toml"),
    `[server]
listen = "127.0.0.1:0"
[admin]
listen = ""
[engine]
url = "${demo.engine}"
[engine.credentials]
username = "demo"
password = "${password}"
[[issuers]]
preset = "oidc"
issuer = "${demo.issuer}"
audience = ["bpmgate-demo"]
[cors]
origins = [${list}]
[telemetry]
log_format = "json"
`,
  );
  const address = await start(
    context,
    BPMGATE,
    ["serve", "--config", "config.toml"],
    (line) => /"message":"listening".*"address":"([^"]+)"|"address":"([^"]+)".*"message":"listening"/.exec(line)?.slice(1).find(Boolean),
    { cwd },
  );
  return `http://${address}`;
}

/** An origin of its own, with an empty page at every path. */
export async function startOrigin(context) {
  const server = createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end("<!doctype html><title>elsewhere</title>");
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  context.after(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

export async function startBrowser(context) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  context.after(() => browser.close());
  return browser;
}

/** A page in a session of its own. Its script must not fail, and must do nothing that the page's policy forbids. */
export async function newPage(context, browser) {
  const session = await browser.newContext({ locale: "en-GB" });
  const page = await session.newPage();
  page.setDefaultTimeout(15_000);
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) wrong.push(message.text());
  });
  context.after(() => assert.deepEqual(wrong, []));
  return page;
}

/** Signs a person in on the page, by the button of the issuer's page. */
export async function signIn(page, demo, name) {
  await page.goto(demo.page);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Sign in to the bpmgate demo" }).waitFor();
  assert.equal(new URL(page.url()).origin, demo.issuer);
  await page.getByRole("button", { name }).click();
  await page.getByRole("button", { name: "Sign out" }).waitFor();
}

/** The access token of the one who is signed in. */
export function tokenOf(page) {
  return page.evaluate(() => {
    const key = Object.keys(sessionStorage).find((key) => key.startsWith("oidc.user:"));
    return JSON.parse(sessionStorage.getItem(key)).access_token;
  });
}

export async function until(what, holds) {
  const deadline = Date.now() + 90_000;
  while (!(await holds().catch(() => false))) {
    assert.ok(Date.now() < deadline, `${what} is not ready`);
    await new Promise((again) => setTimeout(again, 50));
  }
}

function directory(context) {
  const path = mkdtempSync(join(tmpdir(), "bpmgate-"));
  context.after(() => rmSync(path, { recursive: true }));
  return path;
}
