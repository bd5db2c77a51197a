/** What the page asks over plain HTTP; with its token, where it has one. */

import { LOCKED_LINE, type Trouble } from "./connection";
import { sentence } from "./notice";

const PATIENCE = 120;
const PAUSE_MS = 1000;

/** The message is a line for the player. */
export class ApiError extends Error {}

export class Api {
  private readonly pictures = new Map<string, Promise<string>>();

  constructor(private readonly token: string | null) {}

  /** An address for an <img>, which cannot carry a token itself; empty if there is no such picture. */
  picture(path: string): Promise<string> {
    if (!this.token) return Promise.resolve(path);
    const found = this.pictures.get(path) ?? this.file(path).then((blob) => URL.createObjectURL(blob), () => "");
    this.pictures.set(path, found);
    return found;
  }

  async file(path: string): Promise<Blob> {
    return (await this.ask(path)).blob();
  }

  /** Why the server lets nobody in with this token, or without one; null if it does. */
  async refusal(): Promise<Trouble | null> {
    const answer = await fetch("/api/worlds", { headers: this.headers() }).catch(() => null);
    if (!answer || ![401, 403, 429].includes(answer.status)) return null;
    const noToken = answer.status === 401 && !this.token;
    const kind = answer.status === 401 ? "locked" : "refused";
    return { kind, line: noToken ? LOCKED_LINE : await line(answer) };
  }

  /** Hands a saved session, or the link of a replay, to the server. Gives the token to play it with. */
  async bring(world: string, what: Blob | { replay: string }): Promise<string> {
    const [type, body] = what instanceof Blob ? ["octet-stream", what] : ["json", JSON.stringify(what)];
    const headers = { "content-type": `application/${type}` };
    const answer = await this.ask(`/api/worlds/${encodeURIComponent(world)}/sessions`, { method: "POST", body, headers });
    return (await answer.json()).resume;
  }

  private headers(more: HeadersInit = {}): Headers {
    const headers = new Headers(more);
    if (this.token) headers.set("authorization", `Bearer ${this.token}`);
    return headers;
  }

  private async ask(path: string, wanted: RequestInit = {}): Promise<Response> {
    const headers = this.headers(wanted.headers);
    for (let attempt = 0; ; attempt++) {
      const answer = await fetch(path, { ...wanted, headers }).catch(() => {
        throw new ApiError("The server does not answer.");
      });
      if (answer.ok) return answer;
      // A world that is waking up; nobody is served before it has.
      if (answer.status !== 503 || attempt >= PATIENCE) throw new ApiError(await line(answer));
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

async function line(answer: Response): Promise<string> {
  const body = await answer.json().catch(() => null);
  return sentence(body?.error ?? `The server answered ${answer.status}`);
}
