"use client";

import {
  type InvalidateQueryFilters,
  type UseMutationOptions,
  type UseMutationResult,
  useMutation,
  useQueryClient,
} from "@tanstack/react-query";
import type { BpmgateClient, CompleteTask, StartProcess } from "../client.js";
import type { BpmgateError } from "../errors.js";
import { keys } from "../queries.js";
import type { ProcessInstance, Variables } from "../schema.js";
import { useBpmgate } from "./provider.js";

/** Everything that `useMutation` takes, but for the function. */
export type MutationOptions<T, V> = Omit<UseMutationOptions<T, BpmgateError, V>, "mutationFn">;

export interface StartVariables extends StartProcess {
  key: string;
}

export interface CompleteVariables extends CompleteTask {
  id: string;
}

export interface ClaimVariables {
  id: string;
  /** Another one than the caller: for operators. */
  userId?: string;
}

export interface DeleteVariables {
  id: string;
  reason?: string;
}

export interface OfId {
  id: string;
}

/** Starts a process. */
export function useStartProcess(options?: MutationOptions<ProcessInstance, StartVariables>) {
  return useWrite(
    (client, { key, ...start }: StartVariables) => client.startProcess(key, start),
    () => RUNNING,
    options,
  );
}

/** Completes a task. */
export function useCompleteTask(options?: MutationOptions<Variables | undefined, CompleteVariables>) {
  return useWrite(
    (client, { id, ...task }: CompleteVariables) => client.completeTask(id, task),
    ({ id }) => [...RUNNING, { queryKey: ["bpmgate", "instance"] }, gone(keys.task(id))],
    options,
  );
}

/** Claims a task for the caller. */
export function useClaimTask(options?: MutationOptions<void, ClaimVariables>) {
  return useWrite(
    (client, { id, ...claim }: ClaimVariables) => client.claimTask(id, claim),
    ({ id }) => holderOf(id),
    options,
  );
}

/** Gives a task back. */
export function useUnclaimTask(options?: MutationOptions<void, OfId>) {
  return useWrite(
    (client, { id }: OfId) => client.unclaimTask(id),
    ({ id }) => holderOf(id),
    options,
  );
}

/** Deletes an instance; for operators. */
export function useDeleteInstance(options?: MutationOptions<void, DeleteVariables>) {
  return useWrite(
    (client, { id, ...reason }: DeleteVariables) => client.deleteInstance(id, reason),
    ({ id }) => [...RUNNING, gone(keys.instance(id))],
    options,
  );
}

/** Suspends an instance; for operators. */
export function useSuspendInstance(options?: MutationOptions<void, OfId>) {
  return useWrite(
    (client, { id }: OfId) => client.suspendInstance(id),
    ({ id }) => suspensionOf(id),
    options,
  );
}

/** Activates a suspended instance; for operators. */
export function useActivateInstance(options?: MutationOptions<void, OfId>) {
  return useWrite(
    (client, { id }: OfId) => client.activateInstance(id),
    ({ id }) => suspensionOf(id),
    options,
  );
}

/** What changes when an instance moves. */
const RUNNING: InvalidateQueryFilters[] = [
  { queryKey: keys.instances() },
  { queryKey: keys.tasks() },
  { queryKey: keys.activityHistory() },
  { queryKey: keys.statistics },
];

const holderOf = (task: string): InvalidateQueryFilters[] => [
  { queryKey: keys.tasks() },
  { queryKey: keys.task(task) },
  { queryKey: keys.activityHistory() },
];

/** A suspended instance's tasks are suspended too. */
const suspensionOf = (instance: string): InvalidateQueryFilters[] => [
  { queryKey: keys.instances() },
  { queryKey: keys.instance(instance) },
  { queryKey: keys.tasks() },
  { queryKey: ["bpmgate", "task"] },
];

/** Old from now on, and not asked for again while its page still shows it: the answer would be 404. */
const gone = (queryKey: readonly unknown[]): InvalidateQueryFilters => ({ queryKey, refetchType: "none" });

function useWrite<T, V>(
  write: (client: BpmgateClient, variables: V) => Promise<T>,
  changes: (variables: V) => InvalidateQueryFilters[],
  options?: MutationOptions<T, V>,
): UseMutationResult<T, BpmgateError, V> {
  const client = useBpmgate();
  const queryClient = useQueryClient();
  return useMutation<T, BpmgateError, V>({
    ...options,
    mutationFn: (variables) => write(client, variables),
    // After a failure too: somebody else was faster, or the engine did it and the answer got lost.
    onSettled: async (...settled) => {
      const [, , variables] = settled;
      await Promise.all(changes(variables).map((filters) => queryClient.invalidateQueries(filters)));
      return options?.onSettled?.(...settled);
    },
  });
}
