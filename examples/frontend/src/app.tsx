import { BpmgateProvider } from "@bpmgate/client/react";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { useAuth } from "react-oidc-context";
import { Link, Route, Switch, useLocation } from "wouter";
import type { Session } from "./auth";
import { InstancePage } from "./pages/instance";
import { InstancesPage } from "./pages/instances";
import { ProcessPage } from "./pages/process";
import { ProcessesPage } from "./pages/processes";
import { TaskPage } from "./pages/task";
import { TasksPage } from "./pages/tasks";
import { TokenContext } from "./past";
import { Avatar, Empty, ErrorNotice, Loading } from "./ui";

export function App({ session }: { session: Session }) {
  const auth = useAuth();
  const expired = useExpired(session);
  const profile = auth.isAuthenticated && !expired ? auth.user?.profile : undefined;
  useNewView();
  const name = profile?.name ?? profile?.email ?? profile?.sub ?? "";
  return (
    <Provide session={session}>
      <a className="skip" href="#content" onClick={toContent}>
        Skip to content
      </a>
      <header className="bar">
        <div className="inside">
          <Link href="/" className="brand">
            <img src={`${import.meta.env.BASE_URL}icon.svg`} alt="" width="28" height="28" />
            bpmgate <span>demo</span>
          </Link>
          {profile && (
            <>
              <nav aria-label="Main">
                <Tab href="/">Processes</Tab>
                <Tab href="/tasks">Tasks</Tab>
                <Tab href="/instances">Instances</Tab>
              </nav>
              <div className="me">
                <Avatar name={name} />
                <span className="name">{name}</span>
                <button className="plain" onClick={() => session.signOut()}>
                  Sign out
                </button>
              </div>
            </>
          )}
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        {profile ? (
          <Switch>
            <Route path="/" component={ProcessesPage} />
            <Route path="/processes/:key">{({ key }) => <ProcessPage key={key} processKey={key} />}</Route>
            <Route path="/tasks">
              <TasksPage me={profile.sub} />
            </Route>
            <Route path="/tasks/:id">{({ id }) => <TaskPage key={id} id={id} me={profile.sub} />}</Route>
            <Route path="/instances" component={InstancesPage} />
            <Route path="/instances/:id">{({ id }) => <InstancePage key={id} id={id} me={profile.sub} />}</Route>
            <Route>
              <Empty>
                There is no such page. <Link href="/">See the processes</Link>
              </Empty>
            </Route>
          </Switch>
        ) : auth.isLoading ? (
          <Loading />
        ) : (
          <Welcome session={session} expired={expired} error={auth.error} />
        )}
      </main>
    </Provide>
  );
}

/** Gives the hooks below it the session's token. */
function Provide({ session, children }: { session: Session; children: ReactNode }) {
  return (
    <BpmgateProvider getToken={session.token}>
      <TokenContext value={session.token}>{children}</TokenContext>
    </BpmgateProvider>
  );
}

/** Whether the session ended because its token could not be renewed in time. */
function useExpired({ manager }: Session): boolean {
  const [expired, setExpired] = useState(false);
  const queries = useQueryClient();
  useEffect(() => {
    const ends = [
      manager.events.addAccessTokenExpired(() => setExpired(true)),
      manager.events.addUserLoaded(() => setExpired(false)),
      // What one was shown is not for the next.
      manager.events.addUserUnloaded(() => queries.clear()),
    ];
    return () => ends.forEach((end) => end());
  }, [manager, queries]);
  return expired;
}

/** Begins each view at its top, for eyes and for screen readers, as a new page would. */
function useNewView() {
  const [location] = useLocation();
  const shown = useRef(location);
  useEffect(() => {
    if (shown.current === location) return;
    shown.current = location;
    window.scrollTo(0, 0);
    document.getElementById("content")?.focus({ preventScroll: true });
  }, [location]);
}

function Tab({ href, children }: { href: string; children: string }) {
  const [location] = useLocation();
  const current =
    href === "/" ? location === "/" || location.startsWith("/processes") : location.startsWith(href);
  return (
    <Link href={href} aria-current={current ? "page" : undefined}>
      {children}
    </Link>
  );
}

function Welcome({ session, expired, error }: { session: Session; expired: boolean; error?: Error }) {
  return (
    <div className="welcome">
      <title>bpmgate demo</title>
      <h1>Processes that know who started them</h1>
      <p>
        This page talks to a BPMN engine through bpmgate. You sign in at an issuer, the page sends your token
        with each call, and the gateway writes into every process who you are: nobody can claim to be somebody else.
      </p>
      {expired && <p className="notice">Your session has expired. Sign in again to go on.</p>}
      <ErrorNotice error={error} />
      <button className="primary" onClick={() => session.signIn()}>
        Sign in
      </button>
    </div>
  );
}

/** A link would change the hash, which is the route. */
function toContent(event: { preventDefault(): void }) {
  event.preventDefault();
  document.getElementById("content")?.focus();
}
