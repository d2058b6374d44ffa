import { useClaimTask, useCompleteTask, useProcessXml, useTask, useTaskForm, useUnclaimTask } from "@bpmgate/client/react";
import { Link, useLocation } from "wouter";
import { VariableForm } from "../form";
import { Initiator } from "../initiator";
import { formFields } from "../model";
import { POLL } from "../past";
import { Empty, ErrorNotice, keyOf, labelOf, Loading, Title, When } from "../ui";

export function TaskPage({ id, me }: { id: string; me: string }) {
  const task = useTask(id, POLL);
  const form = useTaskForm(id);
  const key = task.data && keyOf(task.data.processDefinitionId ?? "");
  const xml = useProcessXml(key);
  const [, go] = useLocation();
  const claiming = useClaimTask();
  const unclaiming = useUnclaimTask();
  const completing = useCompleteTask({ onSuccess: () => go(`/instances/${task.data?.processInstanceId}`) });
  if (task.error?.status === 404)
    return (
      <Empty>
        This task is done, or never was. <Link href="/tasks">See the tasks</Link>
      </Empty>
    );
  if (!task.data) return task.error ? <ErrorNotice error={task.error} /> : <Loading />;
  const { name, assignee, taskDefinitionKey, processInstanceId, description, created } = task.data;
  const mine = assignee === me;
  const waits = claiming.isPending || unclaiming.isPending;
  return (
    <>
      <Title>{name ?? labelOf(taskDefinitionKey ?? "")}</Title>
      <p className="sub">
        <Link href={`/instances/${processInstanceId}`}>{labelOf(key ?? "")}</Link> · since <When time={created} /> ·{" "}
        {assignee === null ? "unclaimed" : mine ? "yours" : `claimed by ${assignee}`}
      </p>
      {description && <p>{description}</p>}
      {form.data && <Initiator variables={form.data} />}
      <ErrorNotice error={claiming.error ?? unclaiming.error ?? form.error ?? xml.error} />
      {assignee === null && (
        <div className="actions">
          <button className="primary" disabled={waits} onClick={() => claiming.mutate({ id })}>
            Claim
          </button>
        </div>
      )}
      {mine && form.data && !xml.isLoading && (
        <section className="card">
          <h2>Complete</h2>
          <VariableForm
            fields={formFields(form.data, xml.data?.bpmn20Xml, taskDefinitionKey)}
            label="Complete"
            busy={completing.isPending}
            error={completing.error}
            submit={(variables) => completing.mutate({ id, variables })}
          />
        </section>
      )}
      {mine && (
        <div className="actions">
          <button disabled={waits} onClick={() => unclaiming.mutate({ id })}>
            Give it back
          </button>
        </div>
      )}
    </>
  );
}
