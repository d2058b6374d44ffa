import createFetchClient from "openapi-fetch";
import { BpmgateError, networkError, unexpectedAnswer } from "./errors.js";
import type { operations, paths, TypedValue, Variables, VariableValues } from "./schema.js";
import { type Fetch, type GetToken, transport } from "./transport.js";

export interface ClientOptions {
  /** Where the gateway is, such as `https://gate.example.com`. Without it, the page's own origin. */
  baseUrl?: string;
  /** Asked before each request. */
  getToken?: GetToken;
  /** Sends the requests in place of the global `fetch`. */
  fetch?: Fetch;
  /** The gateway's `workflow_api.prefix`; `/api` unless it is configured otherwise. */
  prefix?: string;
}

/** What every method takes last. */
export interface CallOptions {
  /** Ends the call; it then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What the lists take last. */
export interface ListOptions extends CallOptions {
  /** Query parameters of the engine's that the method does not name. */
  parameters?: Record<string, string | number | boolean | undefined>;
}

/** Plain JSON; members that are `undefined` are not sent. */
export type JsonInput =
  | string
  | number
  | boolean
  | null
  | undefined
  | readonly JsonInput[]
  | { readonly [name: string]: JsonInput };

/** A variable as it is sent: plain JSON, whose type is inferred, or typed. */
export type VariableInput = JsonInput | TypedValue;

/** Variables by name, as they are sent. */
export type VariableInputs = { readonly [name: string]: VariableInput };

export interface StartProcess {
  variables?: VariableInputs | undefined;
  businessKey?: string | undefined;
}

export interface CompleteTask {
  variables?: VariableInputs | undefined;
  /** Whether to give back the variables as they are after it. */
  withVariablesInReturn?: boolean | undefined;
}

export type ProcessQuery = Query<"listProcesses">;
export type InstanceQuery = Query<"listInstances">;
export type TaskQuery = Query<"listTasks">;
export type ActivityHistoryQuery = Query<"listActivityHistory">;
export type VariableQuery = Query<"getInstanceVariables">;

type Query<O extends keyof operations> = NonNullable<operations[O]["parameters"]["query"]>;

/** The workflow API: one method per operation, each bound, so that it can be handed on alone. */
export interface BpmgateClient extends ReturnType<typeof createClient> {}

/** Makes a client. It holds no state but its options: on a server, one may serve many callers if `getToken` tells them apart. */
export function createClient(options: ClientOptions = {}) {
  const { baseUrl = "", prefix = DEFAULT_PREFIX } = options;
  const send = transport(options.getToken, options.fetch);
  // The gateway never redirects, and nobody else is to get the variables.
  const api = createFetchClient<paths>({ baseUrl, redirect: "error" });
  const at = <P extends keyof paths>(path: P) => path.replace(DEFAULT_PREFIX, prefix.replace(/\/$/, "")) as P;

  /** Runs one call and gives its data; whatever goes wrong comes out as a {@link BpmgateError}. */
  async function call<T>({ signal }: CallOptions, run: (init: CallInit) => Promise<{ data?: T }>): Promise<T> {
    let answer: Response | undefined;
    const fetch = async (request: Request) => {
      answer = await send(request);
      return answer;
    };
    try {
      const { data } = await run(signal ? { signal, fetch } : { fetch });
      return data as T;
    } catch (error) {
      signal?.throwIfAborted();
      if (answer && !(error instanceof BpmgateError)) {
        throw error instanceof SyntaxError ? unexpectedAnswer(answer, error) : networkError(error);
      }
      throw error;
    }
  }

  return {
    /** The newest version of each process, unless `latestVersion` is false. */
    listProcesses: (query: ProcessQuery = {}, options: ListOptions = {}) =>
      call(options, (init) => api.GET(at("/api/processes"), { ...init, params: listed(query, options) })),

    /** The newest version of a process. */
    getProcess: (key: string, options: CallOptions = {}) =>
      call(options, (init) => api.GET(at("/api/processes/{key}"), { ...init, params: byKey(key) })),

    /** The BPMN model of a process. */
    getProcessXml: (key: string, options: CallOptions = {}) =>
      call(options, (init) => api.GET(at("/api/processes/{key}/xml"), { ...init, params: byKey(key) })),

    /** The variables of a process's start form. */
    getStartForm: (key: string, options: CallOptions = {}) =>
      call(options, (init) => api.GET(at("/api/processes/{key}/form"), { ...init, params: byKey(key) })),

    /** Starts a process as the caller. */
    startProcess: (key: string, { variables, businessKey }: StartProcess = {}, options: CallOptions = {}) =>
      call(options, (init) =>
        api.POST(at("/api/processes/{key}/start"), {
          ...init,
          params: byKey(key),
          body: { variables: variables as VariableValues, businessKey },
        }),
      ),

    /** Running instances. */
    listInstances: (query: InstanceQuery = {}, options: ListOptions = {}) =>
      call(options, (init) => api.GET(at("/api/instances"), { ...init, params: listed(query, options) })),

    /** A running instance; `not_found` once it has ended. */
    getInstance: (id: string, options: CallOptions = {}) =>
      call(options, (init) => api.GET(at("/api/instances/{id}"), { ...init, params: byId(id) })),

    /** Deletes a running instance; for operators. */
    deleteInstance: (id: string, { reason }: { reason?: string | undefined } = {}, options: CallOptions = {}) =>
      call<void>(options, (init) =>
        api.DELETE(at("/api/instances/{id}"), { ...init, params: byId(id), body: reason ? { reason } : undefined }),
      ),

    /** The variables of a running instance. */
    getInstanceVariables: (id: string, query: VariableQuery = {}, options: CallOptions = {}) =>
      call(options, (init) =>
        api.GET(at("/api/instances/{id}/variables"), { ...init, params: { ...byId(id), query } }),
      ),

    /** Suspends a running instance; for operators. */
    suspendInstance: (id: string, options: CallOptions = {}) =>
      call<void>(options, (init) => api.POST(at("/api/instances/{id}/suspend"), { ...init, params: byId(id) })),

    /** Activates a suspended instance; for operators. */
    activateInstance: (id: string, options: CallOptions = {}) =>
      call<void>(options, (init) => api.POST(at("/api/instances/{id}/activate"), { ...init, params: byId(id) })),

    /** The tree of what is active in a running instance. */
    getActivityInstances: (id: string, options: CallOptions = {}) =>
      call(options, (init) => api.GET(at("/api/instances/{id}/activity-instances"), { ...init, params: byId(id) })),

    /** Past and present activities. */
    listActivityHistory: (query: ActivityHistoryQuery = {}, options: ListOptions = {}) =>
      call(options, (init) =>
        api.GET(at("/api/history/activity-instances"), { ...init, params: listed(query, options) }),
      ),

    /** Open tasks. */
    listTasks: (query: TaskQuery = {}, options: ListOptions = {}) =>
      call(options, (init) => api.GET(at("/api/tasks"), { ...init, params: listed(query, options) })),

    /** A task; `not_found` once it is complete. */
    getTask: (id: string, options: CallOptions = {}) =>
      call(options, (init) => api.GET(at("/api/tasks/{id}"), { ...init, params: byId(id) })),

    /** The fields of a task's form and the variables that the task sees. */
    getTaskForm: (id: string, options: CallOptions = {}) =>
      call(options, (init) => api.GET(at("/api/tasks/{id}/form"), { ...init, params: byId(id) })),

    /** Completes a task; gives variables where `withVariablesInReturn` asks for them. */
    completeTask: ((id: string, task: CompleteTask = {}, options: CallOptions = {}) =>
      call(options, (init) =>
        api.POST(at("/api/tasks/{id}/complete"), {
          ...init,
          params: byId(id),
          body: { ...task, variables: task.variables as VariableValues },
        }),
      )) as Complete,

    /** Claims a task for the caller; with another `userId`, for operators. */
    claimTask: (id: string, { userId }: { userId?: string | undefined } = {}, options: CallOptions = {}) =>
      call<void>(options, (init) =>
        api.POST(at("/api/tasks/{id}/claim"), { ...init, params: byId(id), body: userId ? { userId } : undefined }),
      ),

    /** Gives a task back. */
    unclaimTask: (id: string, options: CallOptions = {}) =>
      call<void>(options, (init) => api.POST(at("/api/tasks/{id}/unclaim"), { ...init, params: byId(id) })),

    /** The caller, as the token says. */
    getUser: (options: CallOptions = {}) => call(options, (init) => api.GET(at("/api/user"), { ...init })),

    /** How many processes, instances and tasks there are. */
    getStatistics: (options: CallOptions = {}) => call(options, (init) => api.GET(at("/api/statistics"), { ...init })),

    /** Whether gateway and engine are well; needs no token. */
    getHealth: (options: CallOptions = {}) => call(options, (init) => api.GET("/health", { ...init })),
  };
}

interface Complete {
  (id: string, task: CompleteTask & { withVariablesInReturn: true }, options?: CallOptions): Promise<Variables>;
  (id: string, task?: CompleteTask, options?: CallOptions): Promise<Variables | undefined>;
}

interface CallInit {
  signal?: AbortSignal;
  fetch: Fetch;
}

const DEFAULT_PREFIX = "/api";

const listed = <Q>(query: Q, { parameters }: ListOptions) => ({ query: { ...parameters, ...query } });
const byKey = (key: string) => ({ path: { key: segment(key) } });
const byId = (id: string) => ({ path: { id: segment(id) } });

/** Refuses what would be no segment of a path: `/tasks/` is the list, `/tasks/..` is something else. */
function segment(value: string): string {
  if (typeof value !== "string" || value === "" || value === "." || value === "..") {
    throw new TypeError(`expected an id or a key, found ${JSON.stringify(value)}`);
  }
  return value;
}
