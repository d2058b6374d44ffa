// @vitest-environment jsdom

import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, fireEvent, render, renderHook, screen, waitFor } from "@testing-library/react";
import type { ReactNode } from "react";
import { afterEach, expect, inject, test } from "vitest";
import { type BpmgateClient, BpmgateError, createClient } from "../src/index.js";
import { createQueries, keys } from "../src/queries.js";
import {
  BpmgateProvider,
  useActivateInstance,
  useActivityHistory,
  useActivityInstances,
  useBpmgate,
  useCamundaAPI,
  useClaimTask,
  useCompleteTask,
  useDeleteInstance,
  useHealth,
  useInstance,
  useInstances,
  useInstanceVariables,
  useProcess,
  useProcesses,
  useProcessXml,
  useStartForm,
  useStartProcess,
  useStatistics,
  useSuspendInstance,
  useTask,
  useTaskForm,
  useTasks,
  useUnclaimTask,
  useUser,
} from "../src/react/index.js";
import { OldApproval } from "./old-component.js";
import { bodyOf, problem, serve } from "./support/server.js";

afterEach(cleanup);

const alice = createClient({ baseUrl: inject("gateway"), getToken: () => inject("alice") });
const operator = createClient({ baseUrl: inject("operators"), getToken: () => inject("alice") });

function wrapper(client = alice, queryClient = new QueryClient()) {
  return ({ children }: { children: ReactNode }) => (
    <QueryClientProvider client={queryClient}>
      <BpmgateProvider client={client}>{children}</BpmgateProvider>
    </QueryClientProvider>
  );
}

/** Renders a hook, waits until what it gives fits, and gives that. */
async function settled<T>(hook: () => T, fits: (value: T) => boolean, client = alice) {
  const { result } = renderHook(hook, { wrapper: wrapper(client) });
  await waitFor(() => expect(fits(result.current)).toBe(true), { timeout: 5000 });
  return result.current;
}

async function data<T>(hook: () => { data: T | undefined; error: Error | null; isPending: boolean }) {
  const { data, error } = await settled(hook, ({ isPending }) => !isPending);
  if (data === undefined) {
    throw new Error("expected data", { cause: error });
  }
  return data;
}

async function started(businessKey = crypto.randomUUID()) {
  const { id } = await alice.startProcess("approval", { variables: { subject: "A desk" }, businessKey });
  const [task] = await alice.listTasks({ processInstanceId: id });
  if (!task) {
    throw new Error("expected a task");
  }
  return { id, businessKey, task: task.id };
}

test("each query hook shows what the gateway answers", async () => {
  const { id, businessKey, task } = await started();
  expect(await data(() => useProcesses({ key: "approval" }))).toMatchObject([{ name: "Approval" }]);
  expect(await data(() => useProcess("approval"))).toMatchObject({ key: "approval" });
  const model = expect.stringContaining("<bpmn:process");
  expect(await data(() => useProcessXml("approval"))).toMatchObject({ bpmn20Xml: model });
  expect(await data(() => useStartForm("approval"))).toMatchObject({ amount: { value: 10 } });
  expect(await data(() => useInstances({ businessKey }))).toMatchObject([{ id }]);
  expect(await data(() => useInstance(id))).toMatchObject({ businessKey });
  expect(await data(() => useInstanceVariables(id))).toMatchObject({ initiator: { value: "alice" } });
  expect(await data(() => useActivityInstances(id))).toMatchObject({ processInstanceId: id });
  expect(await data(() => useActivityHistory({ processInstanceId: id }))).toHaveLength(2);
  expect(await data(() => useTasks({ processInstanceId: id }))).toMatchObject([{ id: task }]);
  expect(await data(() => useTask(task))).toMatchObject({ id: task });
  expect(await data(() => useTaskForm(task))).toMatchObject({ subject: { value: "A desk" } });
  expect(await data(() => useUser())).toMatchObject({ sub: "alice" });
  expect(await data(() => useStatistics())).toMatchObject({ totalProcesses: expect.any(Number) });
  expect(await data(() => useHealth())).toMatchObject({ status: "healthy" });
});

test("a query takes the options of useQuery", async () => {
  expect(await data(() => useUser({ select: ({ name }) => name.toUpperCase() }))).toBe("ALICE EXAMPLE");
  const off = await settled(
    () => useUser({ enabled: false }),
    () => true,
  );
  expect(off.fetchStatus).toBe("idle");
});

test("nothing is asked until the id is known", async () => {
  let asked = 0;
  const baseUrl = await serve((_, response) => {
    asked += 1;
    response.writeHead(200, { "Content-Type": "application/json" }).end('{"id":"t"}');
  });
  let id: string | undefined;
  const { result, rerender } = renderHook(() => useTask(id), { wrapper: wrapper(createClient({ baseUrl })) });
  expect(result.current.fetchStatus).toBe("idle");
  id = "t";
  rerender();
  await waitFor(() => expect(result.current.data).toEqual({ id: "t" }));
  expect(asked).toBe(1);
});

/** How often a query is tried when the gateway answers so. */
async function tries(code: string, status: number, queryClient: QueryClient) {
  let asked = 0;
  const baseUrl = await serve((_, response) => {
    asked += 1;
    response.writeHead(status, { "Content-Type": "application/problem+json" }).end(problem(code, status));
  });
  const { result } = renderHook(() => useTasks({}, { retryDelay: 1 }), {
    wrapper: wrapper(createClient({ baseUrl }), queryClient),
  });
  await waitFor(() => expect(result.current.isError).toBe(true));
  expect(result.current.error).toBeInstanceOf(BpmgateError);
  expect(result.current.error?.code).toBe(code);
  return asked;
}

test("what is refused is not asked again, what may pass is, unless the application says how often", async () => {
  expect(await tries("access_denied", 403, new QueryClient())).toBe(1);
  expect(await tries("engine_unreachable", 502, new QueryClient())).toBe(4);
  const never = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  expect(await tries("engine_unreachable", 502, never)).toBe(1);
});

test("a query that nobody waits for any more is aborted", async () => {
  let gone = false;
  let came = false;
  const baseUrl = await serve((_, response) => {
    came = true;
    response.on("close", () => {
      gone = true;
    });
  });
  const { unmount } = renderHook(() => useTasks(), { wrapper: wrapper(createClient({ baseUrl })) });
  await waitFor(() => expect(came).toBe(true));
  unmount();
  await waitFor(() => expect(gone).toBe(true));
});

test("a page that starts, claims, gives back and completes sees each change", async () => {
  const businessKey = crypto.randomUUID();
  const { result } = renderHook(
    () => {
      const instances = useInstances({ businessKey });
      const id = instances.data?.[0]?.id;
      const tasks = useTasks({ processInstanceBusinessKey: businessKey });
      return {
        instances,
        tasks,
        task: useTask(tasks.data?.[0]?.id),
        history: useActivityHistory({ processInstanceId: id ?? "none" }),
        start: useStartProcess(),
        claim: useClaimTask(),
        unclaim: useUnclaimTask(),
        complete: useCompleteTask(),
      };
    },
    { wrapper: wrapper() },
  );
  const shown = () => result.current;
  await waitFor(() => expect([shown().instances.data, shown().tasks.data]).toEqual([[], []]));

  await act(() => shown().start.mutateAsync({ key: "approval", variables: { subject: "A desk" }, businessKey }));
  await waitFor(() => expect(shown().task.data?.assignee).toBeNull());
  expect(shown().instances.data).toHaveLength(1);
  const id = shown().task.data?.id ?? "";

  await act(() => shown().claim.mutateAsync({ id }));
  await waitFor(() => expect(shown().task.data?.assignee).toBe("alice"));
  expect(shown().tasks.data?.[0]?.assignee).toBe("alice");
  await act(() => shown().unclaim.mutateAsync({ id }));
  await waitFor(() => expect(shown().task.data?.assignee).toBeNull());

  await act(() => shown().complete.mutateAsync({ id, variables: { approved: true } }));
  await waitFor(() => expect([shown().instances.data, shown().tasks.data]).toEqual([[], []]));
});

test("an operator's page sees instances suspended, activated and deleted", async () => {
  const { id, businessKey } = await started();
  const { result } = renderHook(
    () => ({
      instances: useInstances({ businessKey }),
      instance: useInstance(id),
      suspend: useSuspendInstance(),
      activate: useActivateInstance(),
      remove: useDeleteInstance(),
    }),
    { wrapper: wrapper(operator) },
  );
  const shown = () => result.current;
  await waitFor(() => expect(shown().instance.data?.suspended).toBe(false));
  await act(() => shown().suspend.mutateAsync({ id }));
  await waitFor(() => expect(shown().instance.data?.suspended).toBe(true));
  await act(() => shown().activate.mutateAsync({ id }));
  await waitFor(() => expect(shown().instance.data?.suspended).toBe(false));
  await act(() => shown().remove.mutateAsync({ id, reason: "Ordered twice" }));
  await waitFor(() => expect(shown().instances.data).toEqual([]));
  expect(shown().instance.error).toBeNull();
});

test("a mutation that fails says why, and what it may have changed is asked again", async () => {
  const { task } = await started();
  const told: unknown[] = [];
  const { result } = renderHook(
    () => ({
      task: useTask(task),
      claim: useClaimTask({ onSettled: (_, error, variables) => void told.push(error?.code, variables) }),
    }),
    { wrapper: wrapper() },
  );
  await waitFor(() => expect(result.current.task.data?.assignee).toBeNull());
  await operator.claimTask(task, { userId: "bob" });
  act(() => result.current.claim.mutate({ id: task }));
  await waitFor(() => expect(result.current.claim.error?.status).toBe(409));
  expect(result.current.task.data?.assignee).toBe("bob");
  expect(told).toEqual([result.current.claim.error?.code, { id: task }]);
});

test("a completed task's page does not ask for it again", async () => {
  const { task } = await started();
  const asked: string[] = [];
  const client = createClient({
    baseUrl: inject("gateway"),
    getToken: () => inject("alice"),
    fetch: (request) => {
      asked.push(`${request.method} ${new URL(request.url).pathname}`);
      return fetch(request);
    },
  });
  const { result } = renderHook(() => ({ task: useTask(task), complete: useCompleteTask() }), {
    wrapper: wrapper(client),
  });
  await waitFor(() => expect(result.current.task.data).toBeDefined());
  await act(() => result.current.complete.mutateAsync({ id: task }));
  expect(asked).toEqual([`GET /api/tasks/${task}`, `POST /api/tasks/${task}/complete`]);
});

type Api = ReturnType<typeof useCamundaAPI>;
type Seer = (client: BpmgateClient, api: Api) => void;

function Page({ see }: { see: Seer }) {
  see(useBpmgate(), useCamundaAPI());
  return null;
}

test("the provider's own client stays the same while getToken is new in every render", async () => {
  const tokens: (string | undefined)[] = [];
  const baseUrl = await serve(async (request, response) => {
    tokens.push(request.headers.authorization);
    await bodyOf(request);
    response.writeHead(200, { "Content-Type": "application/json" }).end("[]");
  });
  const seen = new Set<unknown>();
  let api: Api | undefined;
  const see: Seer = (client, given) => {
    api = given;
    seen.add(client).add(given);
  };
  const page = (token: string) => (
    <BpmgateProvider baseUrl={baseUrl} getToken={async () => token}>
      <Page see={see} />
    </BpmgateProvider>
  );
  const { rerender } = render(page("one"));
  await api?.getTasks();
  rerender(page("two"));
  await api?.getTasks();
  expect(tokens).toEqual(["Bearer one", "Bearer two"]);
  expect(seen.size).toBe(2);
});

test("without a provider the hooks say so", () => {
  expect(() => renderHook(() => useBpmgate())).toThrow("<BpmgateProvider>");
});

test("an old component runs as it is", async () => {
  render(
    <BpmgateProvider baseUrl={inject("gateway")} getToken={() => inject("alice")}>
      <OldApproval me="nobody-at-all" />
    </BpmgateProvider>,
  );
  await screen.findByText("amount: 10");
  fireEvent.click(screen.getByText("Start"));
  await screen.findByText("left 0");
  const lines = screen.getAllByRole("listitem").map(({ textContent }) => textContent);
  expect(lines).toEqual(
    expect.arrayContaining(["Approval", "listed true", "key OLD-1", "by ALICE", "mine 0", "approved false", "left 0"]),
  );
  expect(screen.queryByRole("alert")).toBeNull();
});

test("what a server has fetched is not fetched again", async () => {
  const queryClient = new QueryClient({ defaultOptions: { queries: { staleTime: 60_000 } } });
  await queryClient.prefetchQuery(createQueries(alice).processes({ key: "approval" }));
  expect(queryClient.getQueryData(keys.processes({ key: "approval" }))).toHaveLength(1);
  const nobody = createClient({ baseUrl: inject("gateway") });
  const { result } = renderHook(() => useProcesses({ key: "approval" }), { wrapper: wrapper(nobody, queryClient) });
  expect(result.current.data).toMatchObject([{ key: "approval" }]);
  expect(result.current.fetchStatus).toBe("idle");
});
