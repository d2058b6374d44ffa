import { useProcesses } from "@bpmgate/client/react";
import { Link } from "wouter";
import { Empty, ErrorNotice, Loading, Title } from "../ui";

export function ProcessesPage() {
  const { data, error } = useProcesses({ sortBy: "name", sortOrder: "asc" });
  return (
    <>
      <Title>Processes</Title>
      <ErrorNotice error={error} />
      {!data && !error && <Loading />}
      {data?.length === 0 && <Empty>Nothing is deployed on this engine.</Empty>}
      <ul className="cards">
        {data?.map((process) => (
          <li key={process.id} className="card">
            <h2>
              <Link href={`/processes/${encodeURIComponent(process.key)}`}>{process.name ?? process.key}</Link>
            </h2>
            {process.description && <p>{process.description}</p>}
            <p className="fine">
              <code>{process.key}</code> · version {process.version}
              {process.versionTag && ` (${process.versionTag})`}
            </p>
          </li>
        ))}
      </ul>
    </>
  );
}
