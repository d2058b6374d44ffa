import { BpmgateError } from "@bpmgate/client";
import type { ReactNode } from "react";

/** What went wrong, as the gateway says it: its sentence, and the code to look up. */
export function ErrorNotice({ error }: { error: unknown }) {
  if (!error) return null;
  const message = error instanceof Error ? error.message : String(error);
  return (
    <div className="notice error" role="alert">
      <p>{message}</p>
      {error instanceof BpmgateError && (
        <p className="fine">
          <code>{error.code}</code>
          {error.status > 0 && <> · status {error.status}</>}
          {error.requestId && <> · request {error.requestId}</>}
        </p>
      )}
    </div>
  );
}

/** The heading of a page, and the title of its tab. */
export function Title({ children }: { children: string }) {
  return (
    <>
      <title>{`${children} · bpmgate demo`}</title>
      <h1>{children}</h1>
    </>
  );
}

export function Loading() {
  return (
    <p className="quiet" role="status">
      Loading…
    </p>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="empty">{children}</p>;
}

export function Avatar({ name }: { name: string }) {
  return (
    <span className="avatar" aria-hidden="true">
      {name.trim().charAt(0).toUpperCase() || "?"}
    </span>
  );
}

export function When({ time }: { time: string | null }) {
  if (!time) return null;
  const at = new Date(engineTime(time));
  const today = at.toDateString() === new Date().toDateString();
  return (
    <time dateTime={at.toISOString()} title={at.toLocaleString()}>
      {today
        ? at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" })
        : at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}
    </time>
  );
}

/** `2026-11-24T10:20:30.000+0000` as every browser reads it. */
export function engineTime(time: string): string {
  return time.replace(/([+-]\d\d)(\d\d)$/, "$1:$2");
}

export function duration(millis: number): string {
  if (millis < 1000) return `${millis} ms`;
  const seconds = Math.round(millis / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** `orderTotal` as a label: `Order total`. */
export function labelOf(name: string): string {
  const words = name.replace(/[_-]+/g, " ").replace(/([a-z\d])([A-Z])/g, "$1 $2").toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The key inside a definition's id: `approval:1:9f…`. */
export function keyOf(definitionId: string): string {
  return definitionId.split(":")[0] ?? definitionId;
}
