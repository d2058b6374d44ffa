"use client";

import { createContext, type ReactNode, useContext, useInsertionEffect, useMemo, useRef } from "react";
import { type BpmgateClient, type ClientOptions, createClient } from "../client.js";

export type BpmgateProviderProps = { children?: ReactNode } & (
  | { client: BpmgateClient }
  | ({ client?: undefined } & ClientOptions)
);

const Client = createContext<BpmgateClient | undefined>(undefined);

/** Gives the hooks below it a client: the given one, or one of its own, made of the options of `createClient`. */
export function BpmgateProvider({ children, ...props }: BpmgateProviderProps) {
  const own = useOwnClient(props.client ? {} : props);
  return <Client.Provider value={props.client ?? own}>{children}</Client.Provider>;
}

/** The client of the provider above. */
export function useBpmgate(): BpmgateClient {
  const client = useContext(Client);
  if (!client) {
    throw new Error("there is no <BpmgateProvider> above this component");
  }
  return client;
}

/** A client that stays the same while `getToken` and `fetch` may be new functions in every render. */
function useOwnClient({ baseUrl, prefix, getToken, fetch }: ClientOptions): BpmgateClient {
  const latest = useRef({ getToken, fetch });
  useInsertionEffect(() => {
    latest.current = { getToken, fetch };
  });
  return useMemo(
    () =>
      createClient({
        ...(baseUrl !== undefined && { baseUrl }),
        ...(prefix !== undefined && { prefix }),
        getToken: (options) => latest.current.getToken?.(options),
        fetch: (request) => (latest.current.fetch ?? globalThis.fetch)(request),
      }),
    [baseUrl, prefix],
  );
}
