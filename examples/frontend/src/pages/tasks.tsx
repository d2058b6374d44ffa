import type { Task } from "@bpmgate/client";
import { useClaimTask, useTasks, useUnclaimTask } from "@bpmgate/client/react";
import { Link } from "wouter";
import { POLL, useInitiators } from "../past";
import { Empty, ErrorNotice, keyOf, labelOf, Loading, Title, When } from "../ui";

const NEWEST = { sortBy: "created", sortOrder: "desc", maxResults: 50 } as const;

function StartedBy({ name }: { name: string | undefined }) {
  return name && <> · started by {name}</>;
}

export function TasksPage({ me }: { me: string }) {
  const mine = useTasks({ assignee: me, ...NEWEST }, POLL);
  const unclaimed = useTasks({ unassigned: true, ...NEWEST }, POLL);
  const initiators = useInitiators([...(mine.data ?? []), ...(unclaimed.data ?? [])].flatMap(
    (task) => task.processInstanceId ?? [],
  ));
  const claiming = useClaimTask();
  const unclaiming = useUnclaimTask();
  const busy = claiming.isPending || unclaiming.isPending;
  const error = claiming.error ?? unclaiming.error ?? mine.error ?? unclaimed.error;
  const list = (tasks: Task[] | undefined, none: string, action: "Claim" | "Unclaim") =>
    tasks === undefined ? (
      !error && <Loading />
    ) : tasks.length === 0 ? (
      <Empty>{none}</Empty>
    ) : (
      <ul className="rows">
        {tasks.map((task) => (
          <li key={task.id}>
            <div className="what">
              <Link href={`/tasks/${task.id}`}>{task.name ?? labelOf(task.taskDefinitionKey ?? "")}</Link>
              <p className="fine">
                {labelOf(keyOf(task.processDefinitionId ?? ""))}
                <StartedBy name={initiators.get(task.processInstanceId ?? "")} />
                {" · "}
                <When time={task.created} />
              </p>
            </div>
            <button
              disabled={busy}
              onClick={() => (action === "Claim" ? claiming : unclaiming).mutate({ id: task.id })}
            >
              {action}
            </button>
          </li>
        ))}
      </ul>
    );
  return (
    <>
      <Title>Tasks</Title>
      <ErrorNotice error={error} />
      <section aria-labelledby="mine">
        <h2 id="mine">Mine</h2>
        {list(mine.data, "You have no task. Claim one below.", "Unclaim")}
      </section>
      <section aria-labelledby="unclaimed">
        <h2 id="unclaimed">Unclaimed</h2>
        {list(unclaimed.data, "No task waits for anybody.", "Claim")}
      </section>
    </>
  );
}
