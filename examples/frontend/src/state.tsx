/** The state of an instance, in a word. */
export function State({ state }: { state: string }) {
  const [word, kind] = WORDS[state] ?? [state.toLowerCase(), "ended"];
  return <span className={`state ${kind}`}>{word}</span>;
}

const WORDS: Record<string, [string, string]> = {
  ACTIVE: ["running", "running"],
  SUSPENDED: ["suspended", "suspended"],
  COMPLETED: ["completed", "ended"],
  EXTERNALLY_TERMINATED: ["cancelled", "ended"],
  INTERNALLY_TERMINATED: ["terminated", "ended"],
};
