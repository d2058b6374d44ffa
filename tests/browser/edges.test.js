// What a browser makes of the gateway's answers: other origins, and an engine that asks for a password.
import assert from "node:assert/strict";
import test from "node:test";
import { newPage, signIn, startBrowser, startDemo, startGateway, startOrigin, tokenOf } from "./support.js";

/** Calls the gateway from a page: the status, the body and a header, or that the browser did not let it. */
function call(page, url, token) {
  return page.evaluate(
    async ([url, token]) => {
      try {
        const headers = token ? { Authorization: `Bearer ${token}` } : {};
        const answer = await fetch(url, { headers, credentials: "include" });
        const requestId = answer.headers.get("x-request-id");
        return { status: answer.status, requestId, challenge: answer.headers.get("www-authenticate"), body: await answer.json() };
      } catch (error) {
        return { error: error.name };
      }
    },
    [url, token],
  );
}

/** How many password boxes the page would have opened since. */
async function passwordBoxes(page) {
  let opened = 0;
  const devtools = await page.context().newCDPSession(page);
  // The page may be closed while one of its requests waits.
  const go = (how, request) => devtools.send(how, request).catch(() => {});
  devtools.on("Fetch.authRequired", ({ requestId }) => {
    opened += 1;
    go("Fetch.continueWithAuth", { requestId, authChallengeResponse: { response: "CancelAuth" } });
  });
  devtools.on("Fetch.requestPaused", ({ requestId }) => go("Fetch.continueRequest", { requestId }));
  await devtools.send("Fetch.enable", { handleAuthRequests: true });
  return () => opened;
}

test("pages of other origins", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const [friend, stranger] = [await startOrigin(t), await startOrigin(t)];
  const gateway = await startGateway(t, demo, { origins: [friend] });
  const app = await newPage(t, browser);
  await signIn(app, demo, "Alice Example");
  const token = await tokenOf(app);
  const session = await browser.newContext();
  const page = await session.newPage();

  await page.goto(friend);
  const allowed = await call(page, `${gateway}/api/processes`, token);
  assert.equal(allowed.status, 200, JSON.stringify(allowed));
  assert.ok(allowed.body.some((process) => process.key === "approval"));
  assert.match(allowed.requestId, /^[0-9a-f-]{36}$/);
  // Refusals are to be read too, or a frontend could not say what is wrong.
  const refused = await call(page, `${gateway}/api/processes`, undefined);
  assert.deepEqual([refused.status, refused.body.code], [401, "token_missing"]);
  assert.match(refused.challenge, /^Bearer /);
  const unknown = await call(page, `${gateway}/api/processes/none`, token);
  assert.equal(unknown.status, 404, JSON.stringify(unknown));

  await page.goto(stranger);
  assert.deepEqual(await call(page, `${gateway}/api/processes`, token), { error: "TypeError" });
  assert.deepEqual(await call(page, `${gateway}/health`, undefined), { error: "TypeError" });
});

test("an engine that refuses the gateway's account opens no password box", async (t) => {
  // Its account is locked for a while by this, so it is an engine of its own.
  const demo = await startDemo(t, { inMemory: true });
  const browser = await startBrowser(t);
  const friend = await startOrigin(t);
  const gateway = await startGateway(t, demo, { password: "wrong", origins: [friend] });

  // The engine itself would open one.
  const direct = await newPage(t, browser);
  const openedDirectly = await passwordBoxes(direct);
  await assert.rejects(direct.goto(`${demo.engine}/version`), /ERR_HTTP_RESPONSE_CODE_FAILURE/);
  assert.equal(openedDirectly(), 1);

  const app = await newPage(t, browser);
  await app.route("**/api/**", (route) => {
    const { pathname, search } = new URL(route.request().url());
    return route.continue({ url: `${gateway}${pathname}${search}` });
  });
  await signIn(app, demo, "Alice Example");
  // The frontend says what is wrong.
  assert.match(await app.getByRole("alert").innerText(), /engine_rejected_credentials · status 502/);

  const page = await newPage(t, browser);
  const opened = await passwordBoxes(page);
  await page.goto(friend);
  const answer = await call(page, `${gateway}/api/processes`, await tokenOf(app));
  assert.deepEqual([answer.status, answer.body.code, answer.challenge], [502, "engine_rejected_credentials", null]);
  const health = await page.goto(`${gateway}/health`);
  assert.equal((await health.json()).engine_reachable, false);
  await page.goto(`${gateway}/api/processes`);
  await page.goto(`${gateway}/engine-rest/version`);
  assert.equal(opened(), 0);
});
