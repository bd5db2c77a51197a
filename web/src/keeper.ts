/** What a player takes along: a file, a second session, a link. And the file that one brings back. */

import { forkAddress, replayAddress } from "./address";
import { ApiError, type Api } from "./api";
import { byId } from "./menu";
import { sentence } from "./notice";
import type { Answer, KeptName } from "./protocol";

export const FILE_ENDING = ".reverie";

export class Keeper {
  /** A saved session is at the server: the token to play it with. */
  onBrought: (resume: string) => void = () => {};

  private readonly line = byId("said");
  private readonly link = byId<HTMLInputElement>("said-link");
  /** Opened on the click, while the browser allows it; their addresses come with the answers. */
  private readonly tabs: (Window | null)[] = [];
  private waits = false;

  constructor(
    private readonly api: Api,
    private readonly world: () => string,
    private readonly send: (command: KeptName) => boolean,
  ) {
    // The page and the world hear none of what is pressed in there.
    this.link.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());
    this.link.addEventListener("focus", () => this.link.select());
  }

  ask(command: KeptName): void {
    this.say("One moment");
    this.waits = true;
    if (command === "fork") this.tabs.push(window.open("", "_blank"));
    if (!this.send(command)) this.lost();
  }

  answer(message: Answer): void {
    this.waits = false;
    if (message.command === "fork") this.fork(message.resume);
    if (message.error !== undefined) this.say(sentence(message.error));
    else if (message.command === "save") void this.save(message.url!, message.name!);
    else if (message.command === "share") void this.share(message.replay!);
  }

  /** The connection is gone, and with it what was asked for. */
  lost(): void {
    for (const tab of this.tabs.splice(0)) tab?.close();
    if (this.waits) this.say("There is no connection right now.");
    this.waits = false;
  }

  async open(file: File): Promise<void> {
    this.say(`Opening ${file.name}`);
    try {
      this.onBrought(await this.api.bring(this.world(), file));
    } catch (error) {
      this.fail(error);
    }
  }

  /** A line in the menu; link: an address to copy by hand. */
  say(line: string, link = ""): void {
    this.line.textContent = line;
    this.link.hidden = !link;
    this.link.value = link;
  }

  fail(error: unknown): void {
    if (!(error instanceof ApiError)) throw error;
    this.say(error.message);
  }

  private async save(url: string, name: string): Promise<void> {
    try {
      const file = await this.api.file(url);
      const address = URL.createObjectURL(file);
      Object.assign(document.createElement("a"), { href: address, download: name }).click();
      window.setTimeout(() => URL.revokeObjectURL(address), 60_000);
      this.say(`Saved as ${name}, ${size(file.size)}. Only you have it.`);
    } catch (error) {
      this.fail(error);
    }
  }

  private fork(resume: string | undefined): void {
    const tab = this.tabs.shift();
    if (!resume) tab?.close();
    else if (!tab || tab.closed) this.say("Your browser held the new tab back. Open this within a minute:", location.origin + forkAddress(resume));
    else {
      tab.location.replace(forkAddress(resume));
      this.say("A second session goes on in the new tab.");
    }
  }

  private async share(replay: string): Promise<void> {
    const link = replayAddress(location.origin, this.world(), replay);
    const about = `${link.length.toLocaleString("en")} characters: it plays back exactly what was played.`;
    try {
      await navigator.clipboard.writeText(link);
      this.say(`Link copied, ${about}`);
    } catch {
      this.say(`A link of ${about}`, link);
      this.link.focus({ preventScroll: true });
    }
  }
}

/** Of a file, as people say it. */
export function size(bytes: number): string {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} KB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
