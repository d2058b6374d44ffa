// A component as it was written for the service that came before; only the import is another one. It must compile and run.

import { useEffect, useState } from "react";
import { useCamundaAPI } from "../src/react/index.js";

export function OldApproval({ me }: { me: string }) {
  const { getProcesses, getProcess, getStartForm, startProcess, getInstances, getInstance } = useCamundaAPI();
  const { getInstanceVariables, getTasks, getTaskForm, completeTask } = useCamundaAPI();
  const [fields, setFields] = useState<string[]>([]);
  const [lines, setLines] = useState<string[]>([]);
  const [error, setError] = useState<string | null>(null);

  useEffect(() => {
    const load = async () => {
      try {
        const [process] = await getProcesses();
        const { name } = await getProcess(process!.key);
        const form = await getStartForm(process!.key);
        setFields([name!, ...Object.keys(form).map((field) => `${field}: ${form[field]!.value ?? ""}`)]);
      } catch (caught: any) {
        setError(caught.message);
      }
    };
    load();
  }, [getProcesses, getProcess, getStartForm]);

  const run = async () => {
    const values: Record<string, any> = { subject: "A desk", amount: 100, urgent: true };
    const started = await startProcess("approval", values, "OLD-1");
    const running = await getInstances("approval");
    const instance = await getInstance(started.id);
    const variables = await getInstanceVariables(started.id);
    const tasks = await getTasks(undefined, started.id);
    const mine = await getTasks(me);
    const form = await getTaskForm(tasks[0]!.id);
    await completeTask(tasks[0]!.id, { approved: true });
    setLines([
      `listed ${running.some(({ id }) => id === started.id)}`,
      `key ${instance.businessKey}`,
      `by ${variables.initiator!.value.toUpperCase()}`,
      `mine ${mine.length}`,
      `approved ${form.approved!.value}`,
      `left ${(await getTasks(undefined, started.id)).length}`,
    ]);
  };

  return (
    <div>
      {error && <p role="alert">{error}</p>}
      <ul>
        {[...fields, ...lines].map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      <button type="button" onClick={() => run().catch((caught: any) => setError(caught.message))}>
        Start
      </button>
    </div>
  );
}
