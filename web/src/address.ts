/**
 * What the page's address asks for, and what this tab remembers of it.
 *
 *   ?world=NAME&start=NAME&seed=N&steps=N    how a session begins
 *   #token=JWT                               who plays, where the server asks for that
 *   #resume=TOKEN                            a session that is there already, as a fork is
 *   #world=NAME&replay=LINK                  a session that somebody played
 *
 * Tokens go as soon as they are read: who looks at the address bar, or at the history, shall not see them.
 */

export interface Wishes {
  world?: string;
  start?: string;
  seed?: string;
  steps?: string;
}

export interface Address {
  wishes: Wishes;
  token: string | null;
  resume: string | null;
  replay: string | null;
  /** The address without its tokens: what may stay in the bar. */
  rest: string;
}

/** A session that this tab had, to go on with after a reload. */
export interface Visit {
  address: string;
  resume: string;
  /** It was played, not only looked at behind the title. */
  played: boolean;
}

const TOKEN = "reverie.token";
const VISIT = "reverie.visit";

/** Of location.search and location.hash. */
export function readAddress(search: string, hash: string): Address {
  const fragment = new URLSearchParams(hash.replace(/^#/, ""));
  const [token, resume, replay] = ["token", "resume", "replay"].map((name) => fragment.get(name) || null);
  const wishes: Wishes = Object.fromEntries(new URLSearchParams(search));
  const world = fragment.get("world");
  if (world) wishes.world = world;
  fragment.delete("token");
  fragment.delete("resume");
  const kept = fragment.toString();
  return { wishes, token: token!, resume: resume!, replay: replay!, rest: search + (kept && `#${kept}`) };
}

export function replayAddress(origin: string, world: string, replay: string): string {
  return `${origin}/#${new URLSearchParams({ world, replay })}`;
}

export function forkAddress(resume: string): string {
  return `/#${new URLSearchParams({ resume })}`;
}

/** Of this tab only, and gone with it. */
export class Tab {
  constructor(private readonly storage: Storage) {}

  /** The token of the address, or the one that an earlier address of this tab had. */
  token(fresh: string | null): string | null {
    if (fresh) this.storage.setItem(TOKEN, fresh);
    return fresh ?? this.storage.getItem(TOKEN);
  }

  remember(visit: Visit): void {
    this.storage.setItem(VISIT, JSON.stringify(visit));
  }

  forget(): void {
    this.storage.removeItem(VISIT);
  }

  /** The session that was had at this address. */
  recall(address: string): Visit | null {
    const visit = JSON.parse(this.storage.getItem(VISIT) ?? "null") as Visit | null;
    return visit?.address === address ? visit : null;
  }
}
