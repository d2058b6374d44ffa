import type { EngineError, Problem, ProblemCode } from "./schema.js";

/** The codes that this client gives where the gateway gave none. */
export type ClientErrorCode =
  /** No complete answer came: no connection, or it broke. */
  | "network_error"
  /** An answer came, and it is none of the gateway's: a proxy's page, broken JSON. */
  | "unexpected_answer"
  /** `getToken` threw; its error is the `cause`. */
  | "token_unavailable";

/** The codes that are known today; new ones may come. */
export type BpmgateErrorCode = ProblemCode | ClientErrorCode | (string & {});

/** What every method of the client rejects with, but for aborts (the signal's reason) and bad arguments (`TypeError`). */
export class BpmgateError extends Error {
  override readonly name = "BpmgateError";
  /** For programs. */
  readonly code: BpmgateErrorCode;
  /** The answer's status; 0 where none came. */
  readonly status: number;
  /** For people: what was refused and what would be accepted. */
  readonly detail: string;
  /** Under which id the gateway's log has the request. */
  readonly requestId: string | undefined;
  /** What the engine said, where it said something. */
  readonly engine: EngineError | undefined;
  /** The gateway's whole answer. */
  readonly problem: Problem | undefined;

  constructor(
    init: { code: BpmgateErrorCode; status: number; detail: string; problem?: Problem },
    options?: ErrorOptions,
  ) {
    super(init.detail, options);
    this.code = init.code;
    this.status = init.status;
    this.detail = init.detail;
    this.problem = init.problem;
    this.requestId = init.problem?.requestId;
    this.engine = init.problem?.engine;
  }
}

/** Whether the same request may do better in a moment. Of a write, look first whether it was done. */
export function isTransient(error: unknown): boolean {
  return (
    error instanceof BpmgateError &&
    error.code !== "engine_rejected_credentials" &&
    (error.code === "network_error" || [429, 502, 503, 504].includes(error.status))
  );
}

/** The error that an answer without success stands for. */
export async function errorOf(response: Response): Promise<BpmgateError> {
  const problem = await problemOf(response);
  return problem
    ? new BpmgateError({ code: problem.code, status: response.status, detail: problem.detail, problem })
    : unexpectedAnswer(response);
}

/** The problem in an answer, if it is one of the gateway's. */
export async function problemOf(response: Response): Promise<Problem | undefined> {
  const text = await response.text();
  try {
    const body: unknown = JSON.parse(text);
    return isProblem(body) ? body : undefined;
  } catch {
    return undefined;
  }
}

export function unexpectedAnswer(response: Response, cause?: unknown): BpmgateError {
  const type = response.headers.get("Content-Type") ?? "no content type";
  const detail = `The answer is none of the gateway's: status ${response.status}, ${type}.`;
  return new BpmgateError({ code: "unexpected_answer", status: response.status, detail }, { cause });
}

export function networkError(cause: unknown): BpmgateError {
  return new BpmgateError(
    { code: "network_error", status: 0, detail: "The gateway cannot be reached, or the connection broke." },
    { cause },
  );
}

function isProblem(body: unknown): body is Problem {
  return (
    typeof body === "object" &&
    body !== null &&
    "code" in body &&
    typeof body.code === "string" &&
    "detail" in body &&
    typeof body.detail === "string"
  );
}
