/**
 * Instances that have ended. The workflow API has none, but the engine's own API is behind the same
 * gateway, under the same token.
 */
import { BpmgateError, type Problem } from "@bpmgate/client";
import { keys } from "@bpmgate/client/queries";
import { useQuery } from "@tanstack/react-query";
import { createContext, useContext } from "react";

export interface PastInstance {
  id: string;
  businessKey: string | null;
  processDefinitionId: string;
  processDefinitionKey: string;
  processDefinitionName: string | null;
  startTime: string;
  endTime: string | null;
  startUserId: string | null;
  state: string;
}

export interface PastVariable {
  name: string;
  type: string | null;
  value: unknown;
  processInstanceId: string;
}

/** Gives the token for a call. */
export type Token = () => Promise<string | undefined>;

export const TokenContext = createContext<Token>(async () => undefined);

/** What others change is seen soon. */
export const POLL = { refetchInterval: 5000 };

/** Kept under the client's key of the history, so that its hooks renew them after a change. */
function useHistory<T>(path: string, query: Record<string, string>, enabled = true) {
  const token = useContext(TokenContext);
  const target = `/api/history/${path}?${new URLSearchParams(query)}`;
  return useQuery<T, BpmgateError>({
    queryKey: [...keys.activityHistory(), target],
    queryFn: ({ signal }) => get<T>(target, token, signal),
    enabled,
    ...POLL,
  });
}

async function get<T>(target: string, token: Token, signal: AbortSignal): Promise<T> {
  const answer = await fetch(target, { headers: { Authorization: `Bearer ${await token()}` }, signal });
  if (answer.ok) return answer.json();
  const body = await answer.json().catch(() => ({}));
  const { code = "unexpected_answer", detail = body.message ?? `Status ${answer.status}.` }: Partial<Problem> = body;
  throw new BpmgateError({ code, detail, status: answer.status, ...(body.code && { problem: body }) });
}

export const usePastInstances = () =>
  useHistory<PastInstance[]>("process-instance", { sortBy: "startTime", sortOrder: "desc", maxResults: "50" });

export const usePastInstance = (id: string) =>
  useHistory<PastInstance>(`process-instance/${encodeURIComponent(id)}`, {});

export const usePastVariables = (instance: string) =>
  useHistory<PastVariable[]>("variable-instance", { processInstanceId: instance, deserializeValues: "false" });

/** The names of those who started these instances, by instance: one question for all of them. */
export function useInitiators(instances: string[]): Map<string, string> {
  const ids = [...new Set(instances)].sort();
  const { data = [] } = useHistory<PastVariable[]>(
    "variable-instance",
    { variableName: "initiatorName", processInstanceIdIn: ids.join(",") },
    ids.length > 0,
  );
  return new Map(data.map((variable) => [variable.processInstanceId, String(variable.value)]));
}
