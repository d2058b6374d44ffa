"use client";

import { useMemo } from "react";
import type { ActivityHistoryQuery, BpmgateClient, VariableInputs } from "../client.js";
import { useBpmgate } from "./provider.js";

// biome-ignore lint/suspicious/noExplicitAny: old components hand on whatever their forms hold
type AnyVariables = Record<string, any>;

/** A variable whose value has any type, as old components read it. */
export interface AnyVariable {
  type: string | null;
  // biome-ignore lint/suspicious/noExplicitAny: old components use values without asking for their type
  value: any;
  valueInfo: Record<string, unknown>;
}

/** The hook of the service that came before: the same methods, and the newer calls beside them. They stay the same over renders. */
export function useCamundaAPI() {
  const client = useBpmgate();
  return useMemo(() => camundaAPI(client), [client]);
}

function camundaAPI(client: BpmgateClient) {
  return {
    getProcesses: () => client.listProcesses(),
    getProcess: (key: string) => client.getProcess(key),
    getStartForm: (key: string): Promise<Record<string, AnyVariable>> => client.getStartForm(key),
    startProcess: (key: string, variables: AnyVariables = {}, businessKey?: string) =>
      client.startProcess(key, { variables: variables as VariableInputs, businessKey }),
    getInstances: (processKey?: string) =>
      client.listInstances(processKey ? { processDefinitionKey: processKey } : undefined),
    getInstance: (id: string) => client.getInstance(id),
    getInstanceVariables: (id: string): Promise<Record<string, AnyVariable>> => client.getInstanceVariables(id),
    getTasks: (assignee?: string, instanceId?: string) =>
      client.listTasks({ ...(assignee && { assignee }), ...(instanceId && { processInstanceId: instanceId }) }),
    getTaskForm: (taskId: string): Promise<Record<string, AnyVariable>> => client.getTaskForm(taskId),
    completeTask: (taskId: string, variables: AnyVariables = {}) =>
      client.completeTask(taskId, { variables: variables as VariableInputs }),

    getProcessXml: (key: string) => client.getProcessXml(key),
    deleteInstance: (id: string, reason?: string) => client.deleteInstance(id, { reason }),
    suspendInstance: (id: string) => client.suspendInstance(id),
    activateInstance: (id: string) => client.activateInstance(id),
    getActivityInstances: (id: string) => client.getActivityInstances(id),
    getActivityHistory: (query?: ActivityHistoryQuery) => client.listActivityHistory(query),
    getTask: (id: string) => client.getTask(id),
    claimTask: (id: string, userId?: string) => client.claimTask(id, { userId }),
    unclaimTask: (id: string) => client.unclaimTask(id),
    getUser: () => client.getUser(),
    getStatistics: () => client.getStatistics(),
    getHealth: () => client.getHealth(),
  };
}
