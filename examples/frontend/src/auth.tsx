import { UserManager, WebStorageStateStore } from "oidc-client-ts";
import type { ReactNode } from "react";
import { AuthProvider } from "react-oidc-context";
import type { Config } from "./config";

/** Who may be signed in, and their tokens. */
export interface Session {
  manager: UserManager;
  /** A token that has not expired; another than before where `skipCache` asks for one. */
  token(options?: { skipCache?: boolean }): Promise<string | undefined>;
  /** Renews a session that was left alone for longer than its token lives. */
  resume(): Promise<void>;
  /** Goes to the issuer, and comes back to the same view. */
  signIn(): Promise<void>;
  /** Ends the session: at the issuer too, where it has a page for that. */
  signOut(): Promise<void>;
}

/**
 * Code flow with PKCE, by a library. What is kept is kept for this tab alone, and a token that is about
 * to expire is renewed before it does.
 */
export function createSession(config: Config): Session {
  const store = () => new WebStorageStateStore({ store: window.sessionStorage });
  const manager = new UserManager({
    authority: config.issuer,
    client_id: config.clientId,
    scope: config.scope ?? "openid profile email",
    redirect_uri: home(),
    post_logout_redirect_uri: home(),
    userStore: store(),
    stateStore: store(),
    automaticSilentRenew: true,
    revokeTokenTypes: ["refresh_token"],
  });
  // A refresh token is good once: calls at the same time must not use it twice.
  let renewing: Promise<string | undefined> | undefined;
  const renewed = () => {
    renewing ??= manager
      .signinSilent()
      .then((user) => user?.access_token)
      .finally(() => {
        renewing = undefined;
      });
    return renewing;
  };
  return {
    manager,
    async token({ skipCache = false } = {}) {
      const user = await manager.getUser();
      return user && (skipCache || user.expired) ? renewed() : user?.access_token;
    },
    async resume() {
      const user = await manager.getUser();
      if (user?.expired) await renewed().catch(() => manager.removeUser());
    },
    signIn: () => manager.signinRedirect({ state: { view: window.location.hash } }),
    async signOut() {
      window.location.hash = "#/";
      if (await manager.metadataService.getEndSessionEndpoint()) return manager.signoutRedirect();
      // An issuer that cannot revoke, or not now, must not keep anybody signed in here.
      await manager.revokeTokens().catch(() => undefined);
      await manager.removeUser();
    },
  };
}

export function Authentication({ session, children }: { session: Session; children: ReactNode }) {
  return (
    <AuthProvider
      userManager={session.manager}
      onSigninCallback={(user) => {
        // Takes code and state out of the address, so that a reload does not send them again.
        const state = user?.state as { view?: string } | undefined;
        window.history.replaceState({}, "", home() + (state?.view ?? ""));
        window.dispatchEvent(new HashChangeEvent("hashchange"));
      }}
    >
      {children}
    </AuthProvider>
  );
}

/** The page's own address, which the issuer knows as the place to come back to. */
function home(): string {
  return new URL(import.meta.env.BASE_URL, window.location.origin).href;
}
