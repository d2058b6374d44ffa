"use client";

import { type UseQueryOptions, type UseQueryResult, useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo } from "react";
import type { ActivityHistoryQuery, InstanceQuery, ProcessQuery, TaskQuery, VariableQuery } from "../client.js";
import { type BpmgateError, isTransient } from "../errors.js";
import { createQueries, type Queries, type QueryEntry } from "../queries.js";
import type {
  ActivityInstance,
  Health,
  HistoricActivityInstance,
  ProcessDefinition,
  ProcessInstance,
  ProcessXml,
  Statistics,
  Task,
  User,
  Variables,
} from "../schema.js";
import { useBpmgate } from "./provider.js";

/** Everything that `useQuery` takes, but for the key and the function. */
export type QueryOptions<T, S = T> = Omit<UseQueryOptions<T, BpmgateError, S>, "queryKey" | "queryFn">;

/** An id that may not be known yet; until it is, nothing is asked. */
export type MaybeId = string | null | undefined;

export function useProcesses<S = ProcessDefinition[]>(
  query?: ProcessQuery,
  options?: QueryOptions<ProcessDefinition[], S>,
) {
  return useEntry((queries) => queries.processes(query), options);
}

export function useProcess<S = ProcessDefinition>(key: MaybeId, options?: QueryOptions<ProcessDefinition, S>) {
  return useEntryOf(key, (queries, key) => queries.process(key), options);
}

export function useProcessXml<S = ProcessXml>(key: MaybeId, options?: QueryOptions<ProcessXml, S>) {
  return useEntryOf(key, (queries, key) => queries.processXml(key), options);
}

export function useStartForm<S = Variables>(key: MaybeId, options?: QueryOptions<Variables, S>) {
  return useEntryOf(key, (queries, key) => queries.startForm(key), options);
}

export function useInstances<S = ProcessInstance[]>(
  query?: InstanceQuery,
  options?: QueryOptions<ProcessInstance[], S>,
) {
  return useEntry((queries) => queries.instances(query), options);
}

export function useInstance<S = ProcessInstance>(id: MaybeId, options?: QueryOptions<ProcessInstance, S>) {
  return useEntryOf(id, (queries, id) => queries.instance(id), options);
}

export function useInstanceVariables<S = Variables>(
  id: MaybeId,
  query?: VariableQuery,
  options?: QueryOptions<Variables, S>,
) {
  return useEntryOf(id, (queries, id) => queries.instanceVariables(id, query), options);
}

export function useActivityInstances<S = ActivityInstance>(id: MaybeId, options?: QueryOptions<ActivityInstance, S>) {
  return useEntryOf(id, (queries, id) => queries.activityInstances(id), options);
}

export function useActivityHistory<S = HistoricActivityInstance[]>(
  query?: ActivityHistoryQuery,
  options?: QueryOptions<HistoricActivityInstance[], S>,
) {
  return useEntry((queries) => queries.activityHistory(query), options);
}

export function useTasks<S = Task[]>(query?: TaskQuery, options?: QueryOptions<Task[], S>) {
  return useEntry((queries) => queries.tasks(query), options);
}

export function useTask<S = Task>(id: MaybeId, options?: QueryOptions<Task, S>) {
  return useEntryOf(id, (queries, id) => queries.task(id), options);
}

export function useTaskForm<S = Variables>(id: MaybeId, options?: QueryOptions<Variables, S>) {
  return useEntryOf(id, (queries, id) => queries.taskForm(id), options);
}

export function useUser<S = User>(options?: QueryOptions<User, S>) {
  return useEntry((queries) => queries.user(), options);
}

export function useStatistics<S = Statistics>(options?: QueryOptions<Statistics, S>) {
  return useEntry((queries) => queries.statistics(), options);
}

export function useHealth<S = Health>(options?: QueryOptions<Health, S>) {
  return useEntry((queries) => queries.health(), options);
}

function useEntry<T, S>(
  pick: (queries: Queries) => QueryEntry<T>,
  options?: QueryOptions<T, S>,
): UseQueryResult<S, BpmgateError> {
  const client = useBpmgate();
  const queries = useMemo(() => createQueries(client), [client]);
  // What the gateway has refused, it refuses again: only what may pass is tried again, unless the application says how.
  const retry = useQueryClient().getDefaultOptions().queries?.retry ?? retryTransient;
  return useQuery({ retry, ...options, ...pick(queries) });
}

function useEntryOf<T, S>(
  id: MaybeId,
  pick: (queries: Queries, id: string) => QueryEntry<T>,
  options?: QueryOptions<T, S>,
) {
  const enabled = id ? (options?.enabled ?? true) : false;
  return useEntry<T, S>((queries) => pick(queries, id ?? ""), { ...options, enabled } as QueryOptions<T, S>);
}

const retryTransient = (failures: number, error: Error) => failures < 3 && isTransient(error);
