/**
 * What the player does right now, from every device at once, as one Action.
 *
 * Keys are states. Camera turns are distances: they add up until they are sent. Keys and sticks that turn the camera at a rate
 * are turned into distances frame by frame: the server reads one action per frame, so one frame's worth is added for each frame
 * that arrives, and the world turns evenly whatever the timers of the page do.
 */

import type { Action, ActionSpace } from "./protocol";

export type Source = "keyboard" | "mouse" | "gamepad" | "touch";
type Turn = { yaw: number; pitch: number };

export class Controls {
  /** Something changed. eventMs: the input event's own time, null if nobody did it. urgent: not to be coalesced. */
  onInput: (eventMs: number | null, urgent: boolean) => void = () => {};
  onSlot: (slot: number) => void = () => {};

  private held = new Map<Source, number>();
  private rates = new Map<Source, Turn>();
  private turned: Turn = { yaw: 0, pitch: 0 };
  private slot: number;
  private prepaid = false;

  constructor(
    readonly space: ActionSpace,
    private readonly fps: number,
  ) {
    this.slot = Math.min(1, space.num_slots);
  }

  /** The bit of a key of the world, 0 if it has no such key. */
  bit(key: string | undefined): number {
    const index = key === undefined ? -1 : this.space.keys.indexOf(key);
    return index < 0 ? 0 : 1 << index;
  }

  hold(source: Source, keys: number, eventMs: number): void {
    if ((this.held.get(source) ?? 0) === keys) return;
    this.held.set(source, keys);
    this.onInput(eventMs, true);
  }

  heldBy(source: Source): number {
    return this.held.get(source) ?? 0;
  }

  /** Degrees, to the right and downwards. */
  turn(yaw: number, pitch: number, eventMs: number): void {
    if (!this.space.camera_limit || (!yaw && !pitch)) return;
    this.turned.yaw += yaw;
    this.turned.pitch += pitch;
    this.onInput(eventMs, false);
  }

  /** Degrees per second, until changed. The first frame's worth is sent at once. */
  turnAtRate(source: Source, yaw: number, pitch: number, eventMs: number | null): void {
    const before = this.rates.get(source);
    if (!this.space.camera_limit || (yaw === (before?.yaw ?? 0) && pitch === (before?.pitch ?? 0))) return;
    const wasStill = !this.isTurning();
    this.rates.set(source, { yaw, pitch });
    if (wasStill && this.isTurning()) {
      this.addRates(1);
      this.prepaid = true;
    }
    this.onInput(eventMs, true);
  }

  select(slot: number, eventMs: number): void {
    if (slot < 1 || slot > this.space.num_slots || slot === this.slot) return;
    this.slot = slot;
    this.onSlot(slot);
    this.onInput(eventMs, true);
  }

  selectNext(direction: number, eventMs: number): void {
    const count = this.space.num_slots;
    if (count) this.select(((this.slot - 1 + direction + count) % count) + 1, eventMs);
  }

  /** Frames arrived; answered: they know of everything that was sent. */
  framesArrived(count: number, answered: boolean): void {
    if (!this.isTurning()) return;
    // The frame's worth that was sent with the key press is not read yet: do not send it twice.
    const owed = this.prepaid && !answered ? count - 1 : count;
    this.prepaid = false;
    this.addRates(owed);
  }

  /** The action to send now; camera turns are handed out once. */
  read(): Action {
    const keys = [...this.held.values()].reduce((all, one) => all | one, 0);
    const action = { keys, yaw: this.turned.yaw, pitch: this.turned.pitch, slot: this.slot };
    this.turned = { yaw: 0, pitch: 0 };
    return action;
  }

  /** Lets go of everything, as when the window loses the focus. */
  release(): void {
    this.held.clear();
    this.rates.clear();
    this.turned = { yaw: 0, pitch: 0 };
    this.onInput(null, true);
  }

  private isTurning(): boolean {
    return [...this.rates.values()].some((rate) => rate.yaw !== 0 || rate.pitch !== 0);
  }

  private addRates(frames: number): void {
    for (const rate of this.rates.values()) {
      this.turned.yaw += (rate.yaw * frames) / this.fps;
      this.turned.pitch += (rate.pitch * frames) / this.fps;
    }
  }
}
