import type { ListOptions } from "./client.js";

interface Page {
  firstResult?: number | undefined;
  maxResults?: number | undefined;
}

/**
 * Goes through a list page by page, so that a long one is never held whole.
 *
 * `firstResult` and `maxResults` of the query are where it begins and how many it gives at most. What comes and goes on
 * the engine meanwhile shifts the pages; sort by something that stays.
 *
 * @example for await (const task of paginate(client.listTasks, { unassigned: true })) { … }
 */
export async function* paginate<Q extends Page, T>(
  list: (query?: Q, options?: ListOptions) => Promise<T[]>,
  query: NoInfer<Q> = {} as Q,
  { pageSize = 100, ...options }: ListOptions & { pageSize?: number } = {},
): AsyncGenerator<T, void, undefined> {
  let firstResult = query.firstResult ?? 0;
  const end = firstResult + (query.maxResults ?? Number.POSITIVE_INFINITY);
  while (firstResult < end) {
    const maxResults = Math.min(pageSize, end - firstResult);
    const page = await list({ ...query, firstResult, maxResults }, options);
    yield* page;
    if (page.length < maxResults) {
      return;
    }
    firstResult += page.length;
  }
}
