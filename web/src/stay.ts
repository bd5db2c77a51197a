/** Which session the page goes to: one that the address names, one that this tab had, one that was brought, or a new one. */

import type { Address, Tab } from "./address";
import type { Api } from "./api";
import type { Connection } from "./connection";

/** What to say when the session is there, and the phase that the page then goes to. */
export interface Arrival {
  line: string;
  phase?: "playing" | "paused";
}

export class Stay {
  onFailed: (error: unknown) => void = () => {};
  private arrival: Arrival | null = null;
  private hasArrived = false;

  constructor(
    private readonly address: Address,
    private readonly tab: Tab,
    private readonly api: Api,
    private readonly connection: Connection,
  ) {
    connection.onGone = () => this.beginAnew();
  }

  /** Opens the first session. True if this tab played it before. */
  arrive(): boolean {
    const { resume, replay, rest } = this.address;
    history.replaceState(null, "", location.pathname + rest);
    const visit = this.tab.recall(rest);
    if (resume) this.goTo(resume, { line: "The session goes on here.", phase: "paused" });
    else if (visit) this.goTo(visit.resume, visit.played ? { line: "You are where you were.", phase: "paused" } : null);
    else if (replay) void this.openReplay(replay);
    else this.connection.open();
    return !resume && visit?.played === true;
  }

  goTo(resume: string | null, arrival: Arrival | null): void {
    this.connection.resume = resume;
    this.arrival = arrival;
    this.connection.open();
  }

  /** The connection was lost, and tries to come back to the session. */
  lost(): void {
    if (this.connection.resume) this.arrival ??= { line: "Connected again: you are where you were" };
  }

  /** The session is there. Gives what to say of it, once. */
  arrived(): Arrival | null {
    const arrival = this.arrival;
    this.arrival = null;
    this.hasArrived = true;
    return arrival;
  }

  /** After a reload of this tab it goes on. played: or else it was only looked at behind the title. */
  remember(played: boolean): void {
    const { resume } = this.connection;
    if (resume) this.tab.remember({ address: location.search + location.hash, resume, played });
  }

  /** Ends the session, at the server too. */
  leave(): void {
    this.connection.leave();
    this.forget();
    history.replaceState(null, "", location.pathname + location.search); // a replay has been seen
  }

  /** It is over. */
  forget(): void {
    this.arrival = null;
    this.tab.forget();
  }

  /** The session that was to go on is gone. */
  private beginAnew(): void {
    this.tab.forget();
    const { replay } = this.address;
    if (replay && !this.hasArrived) void this.openReplay(replay);
    else this.goTo(null, this.arrival && { line: "The session could not be kept: the world begins anew" });
  }

  private async openReplay(replay: string): Promise<void> {
    this.connection.onConnecting();
    try {
      const resume = await this.api.bring(this.address.wishes.world ?? "", { replay });
      this.goTo(resume, { line: "A replay: you can take over when it ends", phase: "playing" });
    } catch (error) {
      this.onFailed(error);
      this.goTo(null, null);
    }
  }
}
