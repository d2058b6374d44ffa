import type { ActivityInstance, HistoricActivityInstance } from "@bpmgate/client";
import {
  useActivateInstance,
  useActivityHistory,
  useActivityInstances,
  useDeleteInstance,
  useProcessXml,
  useSuspendInstance,
  useTasks,
} from "@bpmgate/client/react";
import { Link } from "wouter";
import { Diagram } from "../diagram";
import { Initiator } from "../initiator";
import { type PastVariable, POLL, usePastInstance, usePastVariables } from "../past";
import { State } from "../state";
import { duration, Empty, ErrorNotice, labelOf, Loading, Title, When } from "../ui";

export function InstancePage({ id, me }: { id: string; me: string }) {
  const instance = usePastInstance(id);
  const running = instance.data?.endTime === null;
  const xml = useProcessXml(instance.data?.processDefinitionKey);
  const tree = useActivityInstances(id, { enabled: running, ...POLL });
  const variables = usePastVariables(id);
  const activities = useActivityHistory({ processInstanceId: id, sortBy: "startTime", sortOrder: "asc" }, POLL);
  const tasks = useTasks({ processInstanceId: id }, POLL);
  if (instance.error?.status === 404)
    return (
      <Empty>
        There is no such instance. <Link href="/instances">See the instances</Link>
      </Empty>
    );
  if (!instance.data) return instance.error ? <ErrorNotice error={instance.error} /> : <Loading />;
  const { processDefinitionName, processDefinitionKey, businessKey, startTime, endTime, state, startUserId } =
    instance.data;
  const name = processDefinitionName ?? processDefinitionKey;
  const named = Object.fromEntries((variables.data ?? []).map((variable) => [variable.name, variable]));
  const active = running && tree.data ? leaves(tree.data) : [];
  return (
    <>
      <div className="title">
        <Title>{businessKey ? `${name} · ${businessKey}` : name}</Title>
        <State state={state} />
      </div>
      <p className="sub">
        <When time={startTime} />
        {endTime && (
          <>
            {" "}
            to <When time={endTime} />
          </>
        )}{" "}
        · <code className="id">{id}</code>
      </p>
      {variables.data && <Initiator variables={named} account={startUserId} />}
      <ErrorNotice error={xml.error ?? variables.error ?? activities.error ?? tasks.error} />
      {xml.data && (
        <Diagram xml={xml.data.bpmn20Xml} active={active} label={describe(name, active, activities.data)} />
      )}
      {tasks.data?.map((task) => (
        <p key={task.id} className="notice next">
          <span>
            Waits at <strong>{task.name ?? labelOf(task.taskDefinitionKey ?? "")}</strong>
            {task.assignee ? ` for ${task.assignee === me ? "you" : task.assignee}` : ", unclaimed"}
          </span>
          <Link href={`/tasks/${task.id}`} className="button">
            Open the task
          </Link>
        </p>
      ))}
      <div className="columns">
        <section aria-labelledby="history">
          <h2 id="history">History</h2>
          <History activities={activities.data} />
        </section>
        <section aria-labelledby="variables">
          <h2 id="variables">Variables</h2>
          <VariableTable variables={variables.data} />
        </section>
      </div>
      {running && <Operations id={id} suspended={state === "SUSPENDED"} />}
    </>
  );
}

/** The activities where tokens are: the leaves of the tree. */
function leaves({ activityId, childActivityInstances }: ActivityInstance): string[] {
  if (childActivityInstances.length > 0) return childActivityInstances.flatMap(leaves);
  return activityId ? [activityId] : [];
}

function describe(name: string, active: string[], activities: HistoricActivityInstance[] | undefined): string {
  const names = active.map((id) => activities?.find((one) => one.activityId === id)?.activityName ?? id);
  return `Diagram of ${name}${names.length > 0 ? `; active: ${names.join(", ")}` : ""}`;
}

function History({ activities }: { activities: HistoricActivityInstance[] | undefined }) {
  if (!activities) return <Loading />;
  return (
    <ol className="timeline">
      {activities.map((activity) => (
        <li key={activity.id} className={activity.endTime === null ? "open" : activity.canceled ? "canceled" : ""}>
          <p>{activity.activityName ?? activity.activityId}</p>
          <p className="fine">
            {KINDS[activity.activityType] ?? labelOf(activity.activityType)} · <When time={activity.startTime} />
            {activity.assignee && <> · {activity.assignee}</>}
            {activity.endTime === null
              ? " · active"
              : activity.canceled
                ? " · cancelled"
                : activity.durationInMillis
                  ? ` · took ${duration(activity.durationInMillis)}`
                  : ""}
          </p>
        </li>
      ))}
    </ol>
  );
}

const KINDS: Record<string, string> = {
  startEvent: "Start",
  userTask: "User task",
  noneEndEvent: "End",
  exclusiveGateway: "Decision",
};

function VariableTable({ variables }: { variables: PastVariable[] | undefined }) {
  if (!variables) return <Loading />;
  if (variables.length === 0) return <Empty>None.</Empty>;
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">Name</th>
          <th scope="col">Value</th>
          <th scope="col">Type</th>
        </tr>
      </thead>
      <tbody>
        {[...variables]
          .sort((one, other) => one.name.localeCompare(other.name))
          .map((variable) => (
            <tr key={variable.name}>
              <th scope="row">{variable.name}</th>
              <td>
                <Value {...variable} />
              </td>
              <td className="fine">{variable.type}</td>
            </tr>
          ))}
      </tbody>
    </table>
  );
}

function Value({ type, value }: PastVariable) {
  if (value === null || value === undefined) return <span className="fine">null</span>;
  if (type === "Date") return <When time={String(value)} />;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function Operations({ id, suspended }: { id: string; suspended: boolean }) {
  const instance = usePastInstance(id);
  const onSuccess = () => instance.refetch();
  const suspending = useSuspendInstance({ onSuccess });
  const activating = useActivateInstance({ onSuccess });
  const cancelling = useDeleteInstance({ onSuccess });
  const all = [suspending, activating, cancelling];
  const busy = all.some((one) => one.isPending);
  const last = all.reduce((one, other) => (other.submittedAt > one.submittedAt ? other : one));
  return (
    <section className="card" aria-labelledby="operations">
      <h2 id="operations">Operations</h2>
      <p className="fine">
        For operators. The gateway asks the token, not this page, so anybody may try.
      </p>
      <ErrorNotice error={last.error} />
      <div className="actions">
        <button disabled={busy} onClick={() => (suspended ? activating : suspending).mutate({ id })}>
          {suspended ? "Activate" : "Suspend"}
        </button>
        <button className="danger" disabled={busy} onClick={() => cancelling.mutate({ id, reason: "cancelled in the demo" })}>
          Cancel the instance
        </button>
      </div>
    </section>
  );
}
