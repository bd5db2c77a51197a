/** The keyboard: held keys, slots, and turning the camera without a mouse. */

import type { Controls } from "./controls";
import { deviceKey, lookKeys } from "./keymap";

const YAW_DEG_PER_S = 110;
const PITCH_DEG_PER_S = 70;

export class Keyboard {
  private readonly down = new Set<string>();
  private readonly look: Record<string, [number, number]>;

  constructor(private readonly controls: Controls) {
    this.look = lookKeys(controls.space);
  }

  /** True if the world has a use for this key. */
  press(event: KeyboardEvent): boolean {
    const key = deviceKey(event.code);
    const slot = /^(?:digit|numpad)?([1-9])$/.test(key) && !(key in this.look) ? Number(key.at(-1)) : 0;
    const { keymap, num_slots } = this.controls.space;
    if (key in keymap || key in this.look) {
      this.down.add(key);
      this.apply(event.timeStamp);
      return true;
    }
    if (slot && slot <= num_slots) {
      this.controls.select(slot, event.timeStamp);
      return true;
    }
    return false;
  }

  lift(event: KeyboardEvent): void {
    if (this.down.delete(deviceKey(event.code))) this.apply(event.timeStamp);
  }

  release(): void {
    this.down.clear();
  }

  private apply(eventMs: number): void {
    let keys = 0;
    let [right, below] = [0, 0];
    for (const key of this.down) {
      keys |= this.controls.bit(this.controls.space.keymap[key]);
      right += this.look[key]?.[0] ?? 0;
      below += this.look[key]?.[1] ?? 0;
    }
    this.controls.hold("keyboard", keys, eventMs);
    const [yaw, pitch] = [Math.sign(right) * YAW_DEG_PER_S, Math.sign(below) * PITCH_DEG_PER_S];
    this.controls.turnAtRate("keyboard", yaw, pitch, eventMs);
  }
}
