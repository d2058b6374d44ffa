import { BpmgateError, errorOf, networkError, problemOf, unexpectedAnswer } from "./errors.js";

/** Gives a token, or nothing where nobody is signed in. `skipCache` asks for one that was not given before. */
export type GetToken = (options?: {
  skipCache?: boolean;
}) => string | null | undefined | Promise<string | null | undefined>;

export type Fetch = (request: Request) => Promise<Response>;

/** Sends a request with a token, once more with a new one after `token_expired`; gives answers with success alone. */
export function transport(getToken: GetToken | undefined, fetch: Fetch | undefined): Fetch {
  return async (request) => {
    const again = request.clone();
    const token = await askFor(getToken);
    let response = await send(request, token, fetch);
    if (response.status === 401 && token && (await isExpired(response.clone()))) {
      // The gateway checks the token before anything else, so even a POST has done nothing yet.
      const fresh = await askFor(getToken, { skipCache: true });
      if (fresh) {
        response = await send(again, fresh, fetch);
      }
    }
    if (!response.ok) {
      throw await errorOf(response);
    }
    if (response.status !== 204 && !isJson(response)) {
      throw unexpectedAnswer(response);
    }
    return response;
  };
}

async function askFor(getToken: GetToken | undefined, options?: { skipCache: boolean }) {
  try {
    return await getToken?.(options);
  } catch (cause) {
    throw new BpmgateError({ code: "token_unavailable", status: 0, detail: "No token could be had." }, { cause });
  }
}

async function send(request: Request, token: string | null | undefined, fetch: Fetch = globalThis.fetch) {
  if (token) {
    request.headers.set("Authorization", `Bearer ${token}`);
  }
  try {
    return await fetch(request);
  } catch (cause) {
    request.signal.throwIfAborted();
    throw networkError(cause);
  }
}

async function isExpired(response: Response) {
  return (await problemOf(response))?.code === "token_expired";
}

function isJson(response: Response) {
  return /^application\/(?:[\w.-]+\+)?json\b/i.test(response.headers.get("Content-Type") ?? "");
}
