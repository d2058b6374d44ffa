import type { JsonInput } from "@bpmgate/client";
import { type FormEvent, type ReactNode, useId, useState } from "react";
import type { FormField } from "./model";
import { ErrorNotice, labelOf } from "./ui";

export type Typed = Record<string, { value: JsonInput; type: string }>;

/** A form of the fields, which gives typed variables. */
export function VariableForm({
  fields,
  submit,
  label,
  busy,
  error,
  extra = false,
  children,
}: {
  fields: FormField[];
  submit: (variables: Typed) => void;
  label: string;
  busy: boolean;
  error: unknown;
  /** Whether one may add a variable of one's own. */
  extra?: boolean;
  children?: ReactNode;
}) {
  const [own, setOwn] = useState({ name: "", value: "" });
  function send(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const given = new FormData(event.currentTarget);
    const variables: Typed = {};
    for (const field of fields) {
      const value = read(field, given.get(field.name));
      if (value !== undefined) variables[field.name] = { value, type: field.type };
    }
    if (own.name) variables[own.name] = { value: own.value, type: "String" };
    submit(variables);
  }
  return (
    <form className="form" onSubmit={send}>
      {fields.map((field) => (
        <Field key={field.name} field={field} />
      ))}
      {children}
      {extra && (
        <details>
          <summary>Add a variable</summary>
          <p className="fine">
            Try <code>initiator</code>: whatever you claim, the gateway writes who you are.
          </p>
          <div className="pair">
            <label className="field">
              <span>Name</span>
              <input
                value={own.name}
                onChange={(event) => setOwn({ ...own, name: event.target.value })}
                autoComplete="off"
                spellCheck={false}
              />
            </label>
            <label className="field">
              <span>Value</span>
              <input
                value={own.value}
                onChange={(event) => setOwn({ ...own, value: event.target.value })}
                autoComplete="off"
              />
            </label>
          </div>
        </details>
      )}
      <ErrorNotice error={error} />
      <div className="actions">
        <button className="primary" disabled={busy}>
          {label}
        </button>
      </div>
    </form>
  );
}

function Field({ field }: { field: FormField }) {
  const id = useId();
  const label = field.label || labelOf(field.name);
  const initial = field.value ?? "";
  const common = { id, name: field.name, required: field.required };
  if (field.type === "Boolean")
    return (
      <div className="field check">
        <input {...common} required={false} type="checkbox" defaultChecked={String(initial) === "true"} />
        <label htmlFor={id}>{label}</label>
      </div>
    );
  return (
    <div className="field">
      <label htmlFor={id}>
        {label}
        {field.required && <span className="fine"> (required)</span>}
      </label>
      {field.choices.length > 0 ? (
        <select {...common} defaultValue={String(initial)}>
          <option value="">Choose…</option>
          {field.choices.map((choice) => (
            <option key={choice.id} value={choice.id}>
              {choice.name}
            </option>
          ))}
        </select>
      ) : (
        <input
          {...common}
          {...inputOf(field.type)}
          defaultValue={field.type === "Date" ? String(initial).slice(0, 10) : String(initial)}
          autoComplete="off"
        />
      )}
    </div>
  );
}

function inputOf(type: string) {
  switch (type) {
    case "Date":
      return { type: "date" };
    case "Integer":
    case "Long":
    case "Short":
      return { type: "text", inputMode: "numeric", pattern: "-?[0-9]+", title: "A whole number" } as const;
    case "Double":
      return { type: "number", step: "any" };
    default:
      return { type: "text" };
  }
}

/** The value as the engine takes it; nothing for a field that was left empty. */
function read(field: FormField, given: FormDataEntryValue | null): JsonInput {
  if (field.type === "Boolean") return given !== null;
  const text = String(given ?? "").trim();
  if (text === "") return undefined;
  switch (field.type) {
    case "Date":
      return `${text}T00:00:00.000${offset(new Date(`${text}T00:00`))}`;
    // The engine reads a Long from text too, and text loses no digit of a large one.
    case "Long":
      return Number.isSafeInteger(Number(text)) ? Number(text) : text;
    case "Integer":
    case "Short":
    case "Double":
      return Number(text);
    default:
      return text;
  }
}

/** A day begins where one is: `+0100`. */
function offset(at: Date): string {
  const minutes = Math.abs(at.getTimezoneOffset());
  const part = (value: number) => String(Math.floor(value)).padStart(2, "0");
  return (at.getTimezoneOffset() > 0 ? "-" : "+") + part(minutes / 60) + part(minutes % 60);
}
