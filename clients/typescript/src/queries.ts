import type {
  ActivityHistoryQuery,
  BpmgateClient,
  CallOptions,
  InstanceQuery,
  ProcessQuery,
  TaskQuery,
  VariableQuery,
} from "./client.js";

/**
 * The keys under which the hooks keep answers. A key is the beginning of those below it, as TanStack Query compares
 * them: `keys.task(id)` also means the task's form.
 */
export const keys = {
  all: ["bpmgate"],
  processes: (query?: ProcessQuery) => ["bpmgate", "processes", ...given(query)],
  process: (key: string) => ["bpmgate", "process", key],
  processXml: (key: string) => [...keys.process(key), "xml"],
  startForm: (key: string) => [...keys.process(key), "form"],
  instances: (query?: InstanceQuery) => ["bpmgate", "instances", ...given(query)],
  instance: (id: string) => ["bpmgate", "instance", id],
  instanceVariables: (id: string, query?: VariableQuery) => [...keys.instance(id), "variables", ...given(query)],
  activityInstances: (id: string) => [...keys.instance(id), "activities"],
  activityHistory: (query?: ActivityHistoryQuery) => ["bpmgate", "history", ...given(query)],
  tasks: (query?: TaskQuery) => ["bpmgate", "tasks", ...given(query)],
  task: (id: string) => ["bpmgate", "task", id],
  taskForm: (id: string) => [...keys.task(id), "form"],
  user: ["bpmgate", "user"],
  statistics: ["bpmgate", "statistics"],
  health: ["bpmgate", "health"],
} as const;

const given = <Q>(query: Q | undefined) => (query ? [query] : []);

/** Key and function of each query, for `useQuery`, `prefetchQuery` and their kin; the hooks use the same ones. */
export function createQueries(client: BpmgateClient) {
  return {
    processes: (query?: ProcessQuery) =>
      entry(keys.processes(query), (options) => client.listProcesses(query, options)),
    process: (key: string) => entry(keys.process(key), (options) => client.getProcess(key, options)),
    processXml: (key: string) => entry(keys.processXml(key), (options) => client.getProcessXml(key, options)),
    startForm: (key: string) => entry(keys.startForm(key), (options) => client.getStartForm(key, options)),
    instances: (query?: InstanceQuery) =>
      entry(keys.instances(query), (options) => client.listInstances(query, options)),
    instance: (id: string) => entry(keys.instance(id), (options) => client.getInstance(id, options)),
    instanceVariables: (id: string, query?: VariableQuery) =>
      entry(keys.instanceVariables(id, query), (options) => client.getInstanceVariables(id, query, options)),
    activityInstances: (id: string) =>
      entry(keys.activityInstances(id), (options) => client.getActivityInstances(id, options)),
    activityHistory: (query?: ActivityHistoryQuery) =>
      entry(keys.activityHistory(query), (options) => client.listActivityHistory(query, options)),
    tasks: (query?: TaskQuery) => entry(keys.tasks(query), (options) => client.listTasks(query, options)),
    task: (id: string) => entry(keys.task(id), (options) => client.getTask(id, options)),
    taskForm: (id: string) => entry(keys.taskForm(id), (options) => client.getTaskForm(id, options)),
    user: () => entry(keys.user, (options) => client.getUser(options)),
    statistics: () => entry(keys.statistics, (options) => client.getStatistics(options)),
    health: () => entry(keys.health, (options) => client.getHealth(options)),
  };
}

export type Queries = ReturnType<typeof createQueries>;

/** A query as TanStack Query takes it. */
export interface QueryEntry<T> {
  queryKey: readonly unknown[];
  queryFn: (context: { signal: AbortSignal }) => Promise<T>;
}

function entry<T>(queryKey: readonly unknown[], ask: (options: CallOptions) => Promise<T>): QueryEntry<T> {
  return { queryKey, queryFn: ({ signal }) => ask({ signal }) };
}
