export {
  type ActivityHistoryQuery,
  type BpmgateClient,
  type CallOptions,
  type ClientOptions,
  type CompleteTask,
  createClient,
  type InstanceQuery,
  type JsonInput,
  type ListOptions,
  type ProcessQuery,
  type StartProcess,
  type TaskQuery,
  type VariableInput,
  type VariableInputs,
  type VariableQuery,
} from "./client.js";
export { BpmgateError, type BpmgateErrorCode, type ClientErrorCode, isTransient } from "./errors.js";
export { paginate } from "./paginate.js";
export type {
  ActivityInstance,
  EngineError,
  Health,
  HistoricActivityInstance,
  JsonValue,
  Problem,
  ProblemCode,
  ProcessDefinition,
  ProcessInstance,
  ProcessXml,
  Statistics,
  Task,
  TransitionInstance,
  TypedValue,
  User,
  Variable,
  Variables,
} from "./schema.js";
export type { Fetch, GetToken } from "./transport.js";
