/** What differs from place to place; served beside the page, so that one build fits them all. */
export interface Config {
  /** The OpenID Connect issuer that people sign in at. */
  issuer: string;
  clientId: string;
  scope?: string;
}

export async function loadConfig(): Promise<Config> {
  const answer = await fetch(`${import.meta.env.BASE_URL}config.json`);
  if (!answer.ok) throw new Error(`config.json cannot be had: ${answer.status}`);
  const config: Partial<Config> = await answer.json();
  if (!config.issuer || !config.clientId)
    throw new Error("config.json needs the members issuer and clientId");
  return { issuer: config.issuer, clientId: config.clientId, scope: config.scope };
}
