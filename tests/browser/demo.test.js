// The example frontend in a browser, through the gateway to an engine: what its users see and can do.
import assert from "node:assert/strict";
import test from "node:test";
import { newPage, signIn, startBrowser, startDemo, tokenOf, until } from "./support.js";

test("the demo in a browser", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const as = async (t, name) => {
    const page = await newPage(t, browser);
    await signIn(page, demo, name);
    return page;
  };

  await t.test("two people: one starts and claims to be another, the other decides", async (t) => {
    const alice = await as(t, "Alice Example");
    await alice.getByRole("link", { name: "Approval" }).click();
    await alice.getByLabel("What is asked for").fill("A standing desk");
    await alice.getByLabel("Amount in euro").fill("5000000000");
    await alice.getByLabel("Needed by").fill("2027-03-01");
    await alice.getByLabel("Urgent").check();
    await alice.getByLabel("Kind").selectOption("Purchase");
    await alice.getByLabel("Business key").fill("B-7");
    await alice.getByText("Add a variable").click();
    await alice.getByLabel("Name").fill("initiator");
    await alice.getByLabel("Value").fill("the-director");
    await alice.getByRole("button", { name: "Start" }).click();

    const startedBy = alice.getByRole("region", { name: "Started by" });
    await startedBy.getByText("Alice Example").waitFor();
    assert.match(await startedBy.innerText(), /alice · alice@example\.org/);
    assert.match(await startedBy.innerText(), /The engine itself saw its one account, demo\./);
    await alice.getByRole("heading", { name: "Approval · B-7" }).waitFor();
    const shows = (name, value, type) => alice.getByRole("row", { name: `${name} ${value} ${type}`, exact: true }).waitFor();
    await shows("initiator", "alice", "String");
    await shows("initiatorEmail", "alice@example.org", "String");
    await shows("initiatorName", "Alice Example", "String");
    await shows("subject", "A standing desk", "String");
    await shows("amount", "5000000000", "Long");
    await shows("urgent", "true", "Boolean");
    await shows("kind", "purchase", "String");
    await shows("due", "1 Mar 2027, 00:00", "Date");
    assert.doesNotMatch(await alice.locator("body").innerText(), /the-director/);

    // bpmn-js draws the model, and the one active activity is marked.
    await alice.getByRole("group", { name: "Diagram of Approval; active: Approve the request" }).waitFor();
    await alice.locator('[data-element-id="approve"].active').waitFor();
    assert.equal(await alice.locator(".djs-element.active").count(), 1);

    const bob = await as(t, "Bob Example");
    await bob.goto(alice.url());
    const task = await bob.getByRole("link", { name: "Open the task" }).getAttribute("href");
    await bob.getByRole("link", { name: "Tasks" }).click();
    const row = bob.getByRole("listitem").filter({ has: bob.locator(`[href="${task}"]`) });
    await row.getByText("started by Alice Example").waitFor();
    await row.getByRole("button", { name: "Claim" }).click();
    await bob.getByRole("region", { name: "Mine" }).locator(`[href="${task}"]`).click();
    await bob.getByText("Requested by alice").waitFor();
    await bob.getByLabel("Approved").check();
    await bob.getByLabel("Comment").fill("For your back");
    await bob.getByRole("button", { name: "Complete" }).click();
    await bob.getByText("completed", { exact: true }).waitFor();
    assert.match(await bob.getByRole("listitem").filter({ hasText: "User task" }).innerText(), /bob/);

    // Alice's page learns of it by itself.
    await alice.getByText("completed", { exact: true }).waitFor();
    await shows("comment", "For your back", "String");
    await shows("approved", "true", "Boolean");
    await shows("initiator", "alice", "String");
    await alice.locator(".djs-element.active").waitFor({ state: "detached" });
  });

  await t.test("nobody can act as somebody else, whatever the page sends", async (t) => {
    const bob = await as(t, "Bob Example");
    // A page that lies about who starts, in every name there is.
    await bob.route("**/start", (route) => {
      const body = route.request().postDataJSON();
      Object.assign(body.variables, { initiator: "alice", initiatorName: { value: "Alice Example" }, initiatorEmail: null });
      return route.continue({ postData: JSON.stringify(body) });
    });
    await bob.getByRole("link", { name: "Approval" }).click();
    await bob.getByLabel("What is asked for").fill("A forgery");
    await bob.getByRole("button", { name: "Start" }).click();
    const startedBy = bob.getByRole("region", { name: "Started by" });
    await startedBy.getByText("Bob Example").waitFor();
    assert.match(await startedBy.innerText(), /bob · bob@example\.org/);

    await bob.getByRole("link", { name: "Open the task" }).click();
    await bob.route("**/claim", (route) =>
      route.continue({
        postData: JSON.stringify({ userId: "alice" }),
        headers: { ...route.request().headers(), "content-type": "application/json" },
      }),
    );
    const claiming = bob.waitForResponse("**/claim");
    await bob.getByRole("button", { name: "Claim" }).click();
    assert.equal((await claiming).status(), 403);
    const refusal = await bob.getByRole("alert").innerText();
    assert.match(refusal, /access_denied/);
    assert.match(refusal, /`userId` must be your own id/);
    await bob.getByText("unclaimed").waitFor();
    await bob.unroute("**/claim");
    await bob.getByRole("button", { name: "Claim" }).click();
    await bob.getByText("yours").waitFor();

    // What bob holds is not alice's to complete on the page, nor hers to claim.
    const alice = await as(t, "Alice Example");
    await alice.goto(bob.url());
    await alice.getByText("claimed by bob").waitFor();
    assert.equal(await alice.getByRole("button", { name: /Claim|Complete/ }).count(), 0);
  });

  await t.test("a decision gives the initiator a task of their own", async (t) => {
    const alice = await as(t, "Alice Example");
    await alice.getByRole("link", { name: "Vacation" }).click();
    await alice.getByRole("button", { name: "Start" }).click();
    await alice.locator('[data-element-id="decide"].active').waitFor();
    const bob = await as(t, "Bob Example");
    await bob.goto(alice.url());
    await bob.getByRole("link", { name: "Open the task" }).click();
    await bob.getByText("Asked for by alice").waitFor();
    await bob.getByRole("button", { name: "Claim" }).click();
    await bob.getByLabel("Approved").check();
    await bob.getByRole("button", { name: "Complete" }).click();
    await bob.getByText("Waits at Enter it in the calendar for alice").waitFor();
    await alice.getByText("Waits at Enter it in the calendar for you").waitFor();
    await alice.locator('[data-element-id="enter"].active').waitFor();
    await alice.getByRole("link", { name: "Tasks" }).click();
    const mine = alice.getByRole("region", { name: "Mine" });
    await mine.getByRole("link", { name: "Enter it in the calendar" }).first().click();
    await alice.getByRole("button", { name: "Complete" }).click();
    await alice.getByText("completed", { exact: true }).waitFor();
    const history = alice.getByRole("region", { name: "History" });
    await history.getByText("Granted").waitFor();
    const told = await history.innerText();
    assert.match(told, /Asked\n[^]*Decide on the vacation\n[^]*Enter it in the calendar\n[^]*Granted/);
    // An engine may begin both in one millisecond, and then tells either first.
    assert.match(told, /Decide on the vacation\n[^]*Approved\?\n[^]*Granted/);
    assert.doesNotMatch(await history.innerText(), /Refused/);
  });

  await t.test("suspending and cancelling is the operator's", async (t) => {
    const alice = await as(t, "Alice Example");
    await alice.getByRole("link", { name: "Approval" }).click();
    await alice.getByLabel("What is asked for").fill("A chair");
    await alice.getByRole("button", { name: "Start" }).click();
    await alice.getByRole("button", { name: "Cancel the instance" }).click();
    assert.match(await alice.getByRole("alert").innerText(), /access_denied · status 403/);

    const olga = await as(t, "Olga Operator");
    await olga.goto(alice.url());
    await olga.getByRole("button", { name: "Suspend" }).click();
    await olga.getByText("suspended", { exact: true }).waitFor();
    await olga.getByRole("button", { name: "Activate" }).click();
    await olga.getByText("running", { exact: true }).waitFor();
    await olga.getByRole("button", { name: "Cancel the instance" }).click();
    await olga.getByText("cancelled", { exact: true }).waitFor();
    await alice.getByText("cancelled", { exact: true }).waitFor();
  });

  await t.test("a session is the tab's own, outlives a reload, and ends by signing out", async (t) => {
    const alice = await newPage(t, browser);
    await alice.goto(`${demo.page}#/tasks`);
    await signIn(alice, demo, "Alice Example");
    assert.equal(alice.url(), demo.page);
    assert.equal(await alice.evaluate(() => localStorage.length), 0);
    assert.deepEqual(await alice.context().cookies(), []);
    await alice.getByRole("link", { name: "Tasks" }).click();
    await alice.reload();
    await alice.getByRole("heading", { name: "Unclaimed" }).waitFor();

    const other = await alice.context().newPage();
    await other.goto(demo.page);
    await other.getByRole("button", { name: "Sign in" }).waitFor();

    const refresh = await alice.evaluate(() => {
      const key = Object.keys(sessionStorage).find((key) => key.startsWith("oidc.user:"));
      return JSON.parse(sessionStorage.getItem(key)).refresh_token;
    });
    await alice.getByRole("button", { name: "Sign out" }).click();
    await alice.getByRole("button", { name: "Sign in" }).waitFor();
    assert.doesNotMatch(await alice.evaluate(() => JSON.stringify(sessionStorage)), /access_token/);
    const again = await fetch(`${demo.issuer}/token`, {
      method: "POST",
      body: new URLSearchParams({ grant_type: "refresh_token", client_id: demo.clientId, refresh_token: refresh }),
    });
    assert.deepEqual([again.status, await again.json()], [400, { error: "invalid_grant" }]);
  });

  await t.test("signing in comes back to the view that was asked for", async (t) => {
    const alice = await newPage(t, browser);
    await alice.goto(`${demo.page}#/instances`);
    await alice.getByRole("button", { name: "Sign in" }).click();
    await alice.getByRole("button", { name: "Alice Example" }).click();
    await alice.getByRole("heading", { name: "Instances" }).waitFor();
    assert.equal(alice.url(), `${demo.page}#/instances`);
  });

  await t.test("one who goes back without signing in is told so", async (t) => {
    const page = await newPage(t, browser);
    await page.goto(demo.page);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("link", { name: "Back without signing in" }).click();
    assert.match(await page.getByRole("alert").innerText(), /access_denied/);
    await page.getByRole("button", { name: "Sign in" }).waitFor();
  });

  await t.test("a page that comes back after its token expired goes on with a new one", async (t) => {
    const page = await newPage(t, browser);
    await signIn(page, demo, "Alice Example");
    const first = await tokenOf(page);
    const expire = () =>
      page.evaluate(() => {
        const key = Object.keys(sessionStorage).find((key) => key.startsWith("oidc.user:"));
        const user = JSON.parse(sessionStorage.getItem(key));
        sessionStorage.setItem(key, JSON.stringify({ ...user, expires_at: 1 }));
      });
    await expire();
    await page.reload();
    await page.getByRole("link", { name: "Approval" }).waitFor();
    assert.notEqual(await tokenOf(page), first);

    await expire();
    await page.route(`${demo.issuer}/token`, (route) => route.abort());
    await page.reload();
    await page.getByRole("button", { name: "Sign in" }).waitFor();
  });

  await t.test("a token is renewed before it expires, and the session ends where it cannot be", async (t) => {
    const page = await newPage(t, browser);
    await page.clock.install();
    await signIn(page, demo, "Alice Example");
    const first = await tokenOf(page);
    const renewal = page.waitForRequest(
      (request) => request.url() === `${demo.issuer}/token` && request.postData().includes("grant_type=refresh_token"),
    );
    await page.clock.runFor("04:05");
    await renewal;
    await until("a new token", async () => (await tokenOf(page)) !== first);
    await page.getByRole("link", { name: "Tasks" }).click();
    await page.getByRole("heading", { name: "Unclaimed" }).waitFor();

    await page.route(`${demo.issuer}/token`, (route) => route.abort());
    await page.clock.runFor("05:05");
    await page.getByText("Your session has expired.").waitFor();
    await page.getByRole("button", { name: "Sign in" }).waitFor();
  });
});
