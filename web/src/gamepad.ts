/** Gamepads with the standard mapping. Read once per animation frame, and only while one is connected. */

import type { Controls } from "./controls";
import { gamepadButtons } from "./keymap";

const DEAD_ZONE = 0.18;
const WALK_ZONE = 0.4;
const YAW_DEG_PER_S = 200;
const PITCH_DEG_PER_S = 130;
const BUTTON = { leftBumper: 4, rightBumper: 5, menu: 9, up: 12, down: 13, left: 14, right: 15 };

export class Gamepads {
  onMenu: () => void = () => {};
  private polling = false;
  private before: boolean[] = [];

  constructor(
    private readonly controls: () => Controls | null,
    private readonly playing: () => boolean,
  ) {
    window.addEventListener("gamepadconnected", () => this.start());
  }

  private start(): void {
    if (this.polling) return;
    this.polling = true;
    const poll = () => {
      const pad = navigator.getGamepads().find((found) => found?.mapping === "standard");
      this.polling = navigator.getGamepads().some((found) => found !== null);
      if (pad) this.read(pad);
      else this.release();
      if (this.polling) requestAnimationFrame(poll);
    };
    requestAnimationFrame(poll);
  }

  /** A pad that went away with its stick deflected must not go on turning. */
  private release(): void {
    this.before = [];
    this.controls()?.hold("gamepad", 0, performance.now());
    this.controls()?.turnAtRate("gamepad", 0, 0, performance.now());
  }

  private read(pad: Gamepad): void {
    const pressed = pad.buttons.map((button) => button.pressed);
    const fresh = (button: number) => pressed[button] && !this.before[button];
    if (fresh(BUTTON.menu)) this.onMenu();
    const controls = this.controls();
    if (controls && this.playing()) {
      this.apply(controls, pad, pressed);
      if (fresh(BUTTON.leftBumper)) controls.selectNext(-1, pad.timestamp);
      if (fresh(BUTTON.rightBumper)) controls.selectNext(1, pad.timestamp);
    }
    this.before = pressed;
  }

  private apply(controls: Controls, pad: Gamepad, pressed: boolean[]): void {
    const [x = 0, y = 0, lookX = 0, lookY = 0] = pad.axes;
    const moves: [string, boolean | undefined][] = [
      ["forward", y < -WALK_ZONE || pressed[BUTTON.up]],
      ["back", y > WALK_ZONE || pressed[BUTTON.down]],
      ["left", x < -WALK_ZONE || pressed[BUTTON.left]],
      ["right", x > WALK_ZONE || pressed[BUTTON.right]],
    ];
    for (const [key, { button }] of gamepadButtons(controls.space)) moves.push([key, pressed[button]]);
    const keys = moves.reduce((all, [key, held]) => all | (held ? controls.bit(key) : 0), 0);
    // The time at which the browser read the device: there are no events to take it from.
    controls.hold("gamepad", keys, pad.timestamp);
    const [yaw, pitch] = [curve(lookX) * YAW_DEG_PER_S, curve(lookY) * PITCH_DEG_PER_S];
    controls.turnAtRate("gamepad", yaw, pitch, pad.timestamp);
  }
}

/** Fine near the middle, fast at the edge; rounded, so that a resting thumb is not a stream of changes. */
function curve(value: number): number {
  const size = Math.max(0, Math.abs(value) - DEAD_ZONE) / (1 - DEAD_ZONE);
  return Math.sign(value) * Math.round(40 * size ** 1.8) / 40;
}
