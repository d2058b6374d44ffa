import { Avatar } from "./ui";

/** Who started the process, as the gateway wrote it. */
export function Initiator({ variables, account }: { variables: Record<string, { value?: unknown }>; account?: string | null }) {
  const text = (name: string) => {
    const value = variables[name]?.value;
    return typeof value === "string" ? value : "";
  };
  const [id, name, email] = [text("initiator"), text("initiatorName"), text("initiatorEmail")];
  if (!id) return <p className="notice">Nobody is named as the initiator: this was not started through the gateway.</p>;
  return (
    <section className="initiator" aria-label="Started by">
      <Avatar name={name || id} />
      <div>
        <p className="fine">Started by</p>
        <p className="who">{name || id}</p>
        <p className="fine">
          <code>{id}</code>
          {email && <> · {email}</>}
        </p>
      </div>
      {account && (
        <p className="fine aside">
          From the verified token. The engine itself saw its one account, <code>{account}</code>.
        </p>
      )}
    </section>
  );
}
