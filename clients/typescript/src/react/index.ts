"use client";

export { type AnyVariable, useCamundaAPI } from "./camunda-api.js";
export {
  type ClaimVariables,
  type CompleteVariables,
  type DeleteVariables,
  type MutationOptions,
  type OfId,
  type StartVariables,
  useActivateInstance,
  useClaimTask,
  useCompleteTask,
  useDeleteInstance,
  useStartProcess,
  useSuspendInstance,
  useUnclaimTask,
} from "./mutations.js";
export { BpmgateProvider, type BpmgateProviderProps, useBpmgate } from "./provider.js";
export {
  type MaybeId,
  type QueryOptions,
  useActivityHistory,
  useActivityInstances,
  useHealth,
  useInstance,
  useInstances,
  useInstanceVariables,
  useProcess,
  useProcesses,
  useProcessXml,
  useStartForm,
  useStatistics,
  useTask,
  useTaskForm,
  useTasks,
  useUser,
} from "./queries.js";
