import { Link } from "wouter";
import { useInitiators, usePastInstances } from "../past";
import { State } from "../state";
import { Empty, ErrorNotice, Loading, Title, When } from "../ui";

export function InstancesPage() {
  const { data, error } = usePastInstances();
  const initiators = useInitiators((data ?? []).map((instance) => instance.id));
  return (
    <>
      <Title>Instances</Title>
      <ErrorNotice error={error} />
      {!data && !error && <Loading />}
      {data?.length === 0 && (
        <Empty>
          Nothing was started yet. <Link href="/">See the processes</Link>
        </Empty>
      )}
      <ul className="rows">
        {data?.map((instance) => (
          <li key={instance.id}>
            <div className="what">
              <Link href={`/instances/${instance.id}`}>
                {instance.processDefinitionName ?? instance.processDefinitionKey}
                {instance.businessKey && ` · ${instance.businessKey}`}
              </Link>
              <p className="fine">
                {initiators.has(instance.id) && <>{initiators.get(instance.id)} · </>}
                <When time={instance.startTime} />
              </p>
            </div>
            <State state={instance.state} />
          </li>
        ))}
      </ul>
    </>
  );
}
