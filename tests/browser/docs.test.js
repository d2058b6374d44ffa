// The page at /docs: it comes from the gateway alone, and runs a call with the token that it is given.
import assert from "node:assert/strict";
import test from "node:test";
import { newPage, signIn, startBrowser, startDemo, tokenOf } from "./support.js";

test("a call is run from the API's page", async (t) => {
  const demo = await startDemo(t, { inMemory: true });
  const browser = await startBrowser(t);
  const app = await newPage(t, browser);
  await signIn(app, demo, "Alice Example");
  const token = await tokenOf(app);

  const page = await newPage(t, browser);
  const elsewhere = [];
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(demo.gateway).origin) elsewhere.push(request.url());
  });
  await page.goto(`${demo.gateway}/docs`);
  const row = page.locator('[id$="-listProcesses"]');
  await row.waitFor();
  const run = async () => {
    await row.getByRole("button", { name: "Execute" }).click();
    return row.locator(".live-responses-table .response-col_status", { hasText: /^\d/ }).first().innerText();
  };
  await row.locator(".opblock-summary-control").click();
  assert.match(await run(), /^401/);

  await page.locator(".authorize").first().click();
  await page.locator(".modal-ux input").fill(token);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Close" }).click();
  await row.getByRole("button", { name: "Clear" }).click();
  assert.match(await run(), /^200/);
  assert.match(await row.locator(".live-responses-table").innerText(), /"approval"/);
  assert.deepEqual(elsewhere, []);
});
