/** Quiet marks in the corner: what is shown, whether it is a replay, and how long the session may still last. */

import { byId } from "./menu";

export class Marks {
  private endMs = Infinity;

  constructor() {
    window.setInterval(() => this.refresh(), 500);
  }

  /** leftS: seconds that the session may still last; left out where no end is near. */
  show(replays: boolean, leftS?: number): void {
    byId("replay-mark").hidden = !replays;
    this.endMs = leftS === undefined ? Infinity : performance.now() + 1000 * leftS;
    this.refresh();
  }

  clear(): void {
    this.show(false);
  }

  private refresh(): void {
    const mark = byId("time-mark");
    mark.hidden = this.endMs === Infinity;
    if (!mark.hidden) mark.textContent = `${clock((this.endMs - performance.now()) / 1000)} left`;
  }
}

/** "1:05"; never below zero. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
