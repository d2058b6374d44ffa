import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Router } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";
import { App } from "./app";
import { Authentication, createSession } from "./auth";
import { loadConfig } from "./config";
import { ErrorNotice } from "./ui";
import "./style.css";

const root = createRoot(document.getElementById("root") as HTMLElement);

try {
  const session = createSession(await loadConfig());
  await session.resume();
  const queries = new QueryClient({ defaultOptions: { queries: { staleTime: 1000 } } });
  root.render(
    <StrictMode>
      <Authentication session={session}>
        <QueryClientProvider client={queries}>
          <Router hook={useHashLocation}>
            <App session={session} />
          </Router>
        </QueryClientProvider>
      </Authentication>
    </StrictMode>,
  );
} catch (error) {
  root.render(
    <main>
      <ErrorNotice error={error} />
    </main>,
  );
}
