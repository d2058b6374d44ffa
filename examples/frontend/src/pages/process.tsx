import { useProcess, useProcessXml, useStartForm, useStartProcess } from "@bpmgate/client/react";
import { useState } from "react";
import { useLocation } from "wouter";
import { Diagram } from "../diagram";
import { type Typed, VariableForm } from "../form";
import { type FormField, formFields } from "../model";
import { ErrorNotice, Loading, Title } from "../ui";

export function ProcessPage({ processKey }: { processKey: string }) {
  const process = useProcess(processKey);
  const form = useStartForm(processKey);
  const xml = useProcessXml(processKey);
  const [, go] = useLocation();
  const starting = useStartProcess({ onSuccess: (instance) => go(`/instances/${instance.id}`) });
  const name = process.data?.name ?? processKey;
  return (
    <>
      <Title>{name}</Title>
      <ErrorNotice error={process.error ?? form.error ?? xml.error} />
      {xml.data && <Diagram xml={xml.data.bpmn20Xml} label={`Diagram of ${name}`} />}
      {form.isLoading || xml.isLoading ? (
        <Loading />
      ) : (
        form.data && (
          <section className="card">
            <h2>Start</h2>
            <Start
              fields={formFields(form.data, xml.data?.bpmn20Xml, null)}
              busy={starting.isPending}
              error={starting.error}
              submit={(variables, businessKey) =>
                starting.mutate({ key: processKey, variables, ...(businessKey && { businessKey }) })
              }
            />
          </section>
        )
      )}
    </>
  );
}

function Start({
  fields,
  busy,
  error,
  submit,
}: {
  fields: FormField[];
  busy: boolean;
  error: unknown;
  submit: (variables: Typed, businessKey: string) => void;
}) {
  const [businessKey, setBusinessKey] = useState("");
  return (
    <VariableForm
      fields={fields}
      label="Start"
      busy={busy}
      error={error}
      extra
      submit={(variables) => submit(variables, businessKey.trim())}
    >
      <label className="field">
        <span>Business key</span>
        <input value={businessKey} onChange={(event) => setBusinessKey(event.target.value)} autoComplete="off" />
      </label>
    </VariableForm>
  );
}
