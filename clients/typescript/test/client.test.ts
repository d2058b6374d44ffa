import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { expect, inject, test } from "vitest";
import { BpmgateError, type BpmgateErrorCode, createClient, paginate } from "../src/index.js";

const alice = createClient({ baseUrl: inject("gateway"), getToken: () => inject("alice") });
const bob = createClient({ baseUrl: inject("gateway"), getToken: () => inject("bob") });
const operator = createClient({ baseUrl: inject("operators"), getToken: () => inject("alice") });
const nobody = createClient({ baseUrl: inject("gateway") });

const UNKNOWN = "00000000-0000-0000-0000-000000000000";

/** Starts an instance; gives its id and that of its one task. */
async function started(variables = {}) {
  const { id } = await alice.startProcess("approval", { variables, businessKey: randomUUID() });
  const [task] = await alice.listTasks({ processInstanceId: id });
  if (!task) {
    throw new Error("expected a task");
  }
  return { id, task: task.id };
}

/** Status and code of the error that a call ends with. */
async function refusal(promise: Promise<unknown>): Promise<[number, BpmgateErrorCode]> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(error instanceof BpmgateError)) {
    throw new Error("expected a BpmgateError", { cause: error });
  }
  expect(error.requestId).toBeTruthy();
  return [error.status, error.code];
}

test("the client has a method for each operation of the document", async () => {
  const document = JSON.parse(await readFile(new URL("../../../src/workflow/openapi.json", import.meta.url), "utf8"));
  const operations = Object.values<Record<string, { operationId?: string }>>(document.paths)
    .flatMap((path) => Object.values(path).map(({ operationId }) => operationId))
    .filter((id) => id && id !== "getOpenApi");
  expect(Object.keys(alice).sort()).toEqual(operations.sort());
});

test("health needs no token", async () => {
  expect(await nobody.getHealth()).toMatchObject({ status: "healthy", engine_reachable: true });
});

test("everything else needs one", async () => {
  expect(await refusal(nobody.listTasks())).toEqual([401, "token_missing"]);
  const forged = createClient({ baseUrl: inject("gateway"), getToken: () => `${inject("alice")}x` });
  expect(await refusal(forged.getUser())).toEqual([401, "token_invalid"]);
});

test("the caller is who the token says", async () => {
  expect(await alice.getUser()).toMatchObject({ sub: "alice", email: "alice@example.org", name: "Alice Example" });
  expect(await bob.getUser()).toMatchObject({ sub: "bob" });
});

test("processes are listed and shown with model and form", async () => {
  const processes = await alice.listProcesses({ key: "approval", sortBy: "version", sortOrder: "desc" });
  expect(processes).toHaveLength(1);
  const process = await alice.getProcess("approval");
  expect(process).toEqual(processes[0]);
  expect(process).toMatchObject({ key: "approval", name: "Approval", suspended: false });
  const xml = await alice.getProcessXml("approval");
  expect(xml.id).toBe(process.id);
  expect(xml.bpmn20Xml).toContain('<bpmn:process id="approval"');
  expect(await alice.getStartForm("approval")).toMatchObject({
    amount: { type: "Long", value: 10 },
    urgent: { type: "Boolean", value: false },
  });
});

test("what does not exist is 404", async () => {
  const calls = [
    alice.getProcess("nope"),
    alice.getProcessXml("nope"),
    alice.getStartForm("nope"),
    alice.startProcess("nope"),
    alice.getInstance(UNKNOWN),
    alice.getInstanceVariables(UNKNOWN),
    alice.getActivityInstances(UNKNOWN),
    alice.getTask(UNKNOWN),
    alice.completeTask(UNKNOWN),
    alice.claimTask(UNKNOWN),
    operator.deleteInstance(UNKNOWN),
  ];
  expect(await Promise.all(calls.map(refusal))).toEqual(calls.map(() => [404, "engine_refused"]));
});

test("an unknown task has no form and cannot be given back", async () => {
  for (const call of [alice.getTaskForm, alice.unclaimTask]) {
    const [status, code] = await refusal(call(UNKNOWN));
    // Engines differ.
    expect([400, 404]).toContain(status);
    expect(code).toBe("engine_refused");
  }
});

test("variables reach the engine with their types, and the initiator is the token's", async () => {
  const { id } = await started({
    text: "Grüße 🎉",
    flag: true,
    small: 2147483647,
    large: 5_000_000_000,
    fraction: 1.5,
    nothing: null,
    exact: { value: "9007199254740993", type: "Long" },
    due: { value: "2026-12-24T00:00:00.000+0000", type: "Date" },
    unsent: undefined,
    initiator: "the-director",
  });
  const variables = await alice.getInstanceVariables(id);
  const shown = Object.fromEntries(Object.entries(variables).map(([name, { type, value }]) => [name, [type, value]]));
  expect(shown).toMatchObject({
    text: ["String", "Grüße 🎉"],
    flag: ["Boolean", true],
    small: ["Integer", 2147483647],
    large: ["Long", 5_000_000_000],
    fraction: ["Double", 1.5],
    nothing: ["Null", null],
    due: ["Date", "2026-12-24T00:00:00.000+0000"],
    initiator: ["String", "alice"],
    initiatorName: ["String", "Alice Example"],
  });
  expect(variables.exact?.type).toBe("Long");
  expect(variables).not.toHaveProperty("unsent");
});

test("arrays and objects reach the engine as JSON", async () => {
  const { id } = await started({ list: [{ sku: "D-1", count: 2 }], nested: { a: { b: [] } } });
  expect(await alice.getInstanceVariables(id)).toMatchObject({
    list: { type: "Json", value: '[{"sku":"D-1","count":2}]' },
    nested: { type: "Json", value: '{"a":{"b":[]}}' },
  });
});

test("a process starts without variables", async () => {
  const instance = await alice.startProcess("approval");
  expect(instance).toMatchObject({ businessKey: null, ended: false, suspended: false });
});

test("instances are listed, shown and looked into", async () => {
  const businessKey = randomUUID();
  const { id } = await alice.startProcess("approval", { businessKey });
  expect(await alice.listInstances({ businessKey, processDefinitionKey: "approval" })).toMatchObject([{ id }]);
  expect(await alice.listInstances({ businessKey, suspended: true })).toEqual([]);
  expect(await alice.getInstance(id)).toMatchObject({ id, businessKey, ended: false });
  const tree = await alice.getActivityInstances(id);
  expect(tree.childActivityInstances).toMatchObject([{ activityId: "approve", activityType: "userTask" }]);
  const history = await alice.listActivityHistory({ processInstanceId: id, sortBy: "activityId", sortOrder: "asc" });
  expect(history.map(({ activityId, endTime }) => [activityId, endTime === null])).toEqual([
    ["approve", true],
    ["requested", false],
  ]);
});

test("a task is claimed, given back, claimed by another one and completed", async () => {
  const { id, task } = await started({ subject: "A desk" });
  expect(await alice.getTask(task)).toMatchObject({ id: task, processInstanceId: id, assignee: null });
  expect(await alice.getTaskForm(task)).toMatchObject({
    approved: { type: "Boolean", value: false },
    subject: { type: "String", value: "A desk" },
  });

  expect(await alice.claimTask(task)).toBeUndefined();
  expect(await bob.listTasks({ assignee: "alice", processInstanceId: id })).toMatchObject([{ id: task }]);
  expect(await refusal(bob.claimTask(task))).toEqual([409, "engine_refused"]);
  expect(await alice.unclaimTask(task)).toBeUndefined();
  expect(await refusal(bob.claimTask(task, { userId: "alice" }))).toEqual([403, "access_denied"]);
  await bob.claimTask(task, { userId: "bob" });
  expect((await bob.getTask(task)).assignee).toBe("bob");

  expect(await bob.completeTask(task, { variables: { approved: true } })).toBeUndefined();
  expect((await refusal(bob.getTask(task)))[0]).toBe(404);
  expect((await refusal(bob.getInstance(id)))[0]).toBe(404);
});

test("completing gives variables where they are asked for", async () => {
  const { task } = await started();
  const variables = await bob.completeTask(task, { variables: { approved: false }, withVariablesInReturn: true });
  expect(variables).toMatchObject({ approved: { type: "Boolean", value: false }, initiator: { value: "alice" } });
});

test("instances are suspended, activated and deleted by operators alone", async () => {
  const { id, task } = await started();
  for (const write of [alice.suspendInstance, alice.activateInstance, alice.deleteInstance]) {
    expect(await refusal(write(id))).toEqual([403, "access_denied"]);
  }
  expect(await operator.suspendInstance(id)).toBeUndefined();
  expect(await alice.getInstance(id)).toMatchObject({ suspended: true });
  expect(await refusal(bob.completeTask(task))).toEqual([409, "engine_refused"]);
  expect(await operator.activateInstance(id)).toBeUndefined();
  expect(await alice.getInstance(id)).toMatchObject({ suspended: false });
  expect(await operator.deleteInstance(id, { reason: "Ordered twice" })).toBeUndefined();
  expect((await refusal(alice.getInstance(id)))[0]).toBe(404);
});

test("an operator claims for somebody else", async () => {
  const { task } = await started();
  await operator.claimTask(task, { userId: "bob" });
  expect((await bob.getTask(task)).assignee).toBe("bob");
});

test("statistics count what there is", async () => {
  const before = await alice.getStatistics();
  await started();
  const after = await alice.getStatistics();
  expect(after.totalProcesses).toBe(before.totalProcesses);
  expect(after.activeInstances).toBeGreaterThan(before.activeInstances);
  expect(after.activeTasks).toBeGreaterThan(before.activeTasks);
  expect(after.completedInstances).toBeGreaterThanOrEqual(before.completedInstances);
});

test("what the engine calls wrong keeps the engine's words", async () => {
  const wrong = alice.startProcess("approval", { variables: { n: { value: 3_000_000_000, type: "Integer" } } });
  const error: BpmgateError = await wrong.catch((error) => error);
  expect(error).toBeInstanceOf(BpmgateError);
  expect(error.status).toBe(400);
  expect(error.detail).toContain("3000000000");
  expect(error.engine?.type).toBe("InvalidRequestException");
});

test("a list is gone through page by page", async () => {
  const businessKey = randomUUID();
  const ids: string[] = [];
  for (let count = 0; count < 5; count += 1) {
    ids.push((await alice.startProcess("approval", { businessKey })).id);
  }
  let pages = 0;
  const list: typeof alice.listInstances = (query, options) => {
    pages += 1;
    return alice.listInstances(query, options);
  };
  async function collect(query: { firstResult?: number; maxResults?: number }, pageSize: number) {
    pages = 0;
    const found: string[] = [];
    for await (const instance of paginate(list, { businessKey, ...query }, { pageSize })) {
      found.push(instance.id);
    }
    return found;
  }
  const all = await collect({}, 2);
  expect([...all].sort()).toEqual(ids.sort());
  expect(pages).toBe(3);
  expect(await collect({}, 5)).toEqual(all);
  expect(pages).toBe(2);
  expect(await collect({ firstResult: 1, maxResults: 3 }, 2)).toEqual(all.slice(1, 4));
  expect(pages).toBe(2);
  expect(await collect({ maxResults: 0 }, 2)).toEqual([]);
  expect(pages).toBe(0);
});

test("pages end with the signal", async () => {
  const ending = new AbortController();
  const reason = new Error("enough");
  const pages = paginate(alice.listProcesses, {}, { pageSize: 1, signal: ending.signal });
  await pages.next();
  ending.abort(reason);
  await expect(pages.next()).rejects.toBe(reason);
});
