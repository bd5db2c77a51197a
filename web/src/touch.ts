/**
 * Thumbs: a stick that appears where the left one lands, looking around with the right one, and a button for every key of the
 * world that is not walking. Shown once the screen is touched.
 */

import type { Controls } from "./controls";
import { STICK_KEYS, title } from "./keymap";

const STICK_RADIUS = 56;
const SPRINT_AT = 1.35;
const DEGREES_PER_PIXEL = 0.32;

export class Touch {
  private stick: { id: number; x: number; y: number } | null = null;
  private look: { id: number; x: number; y: number } | null = null;
  private buttons = 0;
  private walking = 0;

  constructor(
    private readonly stage: HTMLElement,
    private readonly panel: HTMLElement,
    private readonly controls: () => Controls | null,
    private readonly playing: () => boolean,
  ) {
    for (const type of ["pointerdown", "pointermove", "pointerup", "pointercancel"] as const) {
      stage.addEventListener(type, (event) => {
        // A thumb that is lifted in the menu is gone as well.
        const lifted = type === "pointerup" || type === "pointercancel";
        if (event.pointerType !== "mouse" && (lifted || playing())) this.stageEvent(event);
      });
    }
    // Remembered for the whole page: a tablet with a mouse shows the buttons only once it is touched.
    window.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") document.documentElement.dataset.touch = "";
    });
    if (matchMedia("(hover: none) and (pointer: coarse)").matches) document.documentElement.dataset.touch = "";
  }

  /** Buttons for the keys of this world. */
  build(controls: Controls): void {
    const keys = controls.space.keys.filter((key) => !(STICK_KEYS as readonly string[]).includes(key));
    const buttons = this.panel.querySelector(".touch-buttons")!;
    buttons.replaceChildren(...keys.map((key) => this.keyButton(key, controls.bit(key))));
    const slots = this.panel.querySelector(".touch-slots")!;
    const numbers = Array.from({ length: controls.space.num_slots }, (_, index) => index + 1);
    slots.replaceChildren(...numbers.map((slot) => this.slotButton(slot)));
  }

  showSlot(slot: number): void {
    for (const button of this.panel.querySelectorAll<HTMLElement>(".touch-slots button"))
      button.setAttribute("aria-pressed", String(button.textContent === String(slot)));
  }

  private keyButton(key: string, bit: number): HTMLButtonElement {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title(key);
    button.dataset.key = key;
    const set = (event: PointerEvent, down: boolean) => {
      event.preventDefault();
      this.buttons = down ? this.buttons | bit : this.buttons & ~bit;
      button.classList.toggle("held", down);
      this.apply(event.timeStamp);
    };
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      set(event, true);
    });
    button.addEventListener("pointerup", (event) => set(event, false));
    button.addEventListener("pointercancel", (event) => set(event, false));
    return button;
  }

  private slotButton(slot: number): HTMLButtonElement {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = String(slot);
    button.ariaLabel = `Slot ${slot}`;
    button.setAttribute("aria-pressed", String(slot === 1));
    button.addEventListener("pointerdown", (event) => this.controls()?.select(slot, event.timeStamp));
    return button;
  }

  private stageEvent(event: PointerEvent): void {
    event.preventDefault();
    const at = { id: event.pointerId, x: event.clientX, y: event.clientY };
    if (event.type === "pointerdown") {
      this.stage.setPointerCapture(event.pointerId);
      if (event.clientX < innerWidth / 2 && !this.stick) this.stick = at;
      else if (!this.look) this.look = at;
    } else if (event.type === "pointermove") {
      if (event.pointerId === this.look?.id) this.turn(event);
    } else {
      if (event.pointerId === this.stick?.id) this.stick = null;
      if (event.pointerId === this.look?.id) this.look = null;
    }
    if (event.pointerId === (this.stick?.id ?? event.pointerId)) this.walk(event);
  }

  private turn(event: PointerEvent): void {
    const look = this.look!;
    const [right, below] = [event.clientX - look.x, event.clientY - look.y];
    this.look = { id: look.id, x: event.clientX, y: event.clientY };
    this.controls()?.turn(right * DEGREES_PER_PIXEL, below * DEGREES_PER_PIXEL, event.timeStamp);
  }

  private walk(event: PointerEvent): void {
    const controls = this.controls();
    if (!controls) return;
    const knob = this.panel.querySelector<HTMLElement>(".touch-stick")!;
    knob.classList.toggle("held", this.stick !== null);
    knob.removeAttribute("style");
    this.walking = 0;
    if (this.stick) {
      const x = (event.clientX - this.stick.x) / STICK_RADIUS;
      const y = (event.clientY - this.stick.y) / STICK_RADIUS;
      const size = Math.hypot(x, y);
      const held = { forward: y < -0.35, back: y > 0.35, left: x < -0.35, right: x > 0.35, sprint: size > SPRINT_AT };
      for (const [key, down] of Object.entries(held)) if (down) this.walking |= controls.bit(key);
      const reach = Math.min(1, 1 / Math.max(size, 1e-6));
      knob.style.left = `${this.stick.x}px`;
      knob.style.top = `${this.stick.y}px`;
      knob.style.setProperty("--x", `${x * reach * STICK_RADIUS}px`);
      knob.style.setProperty("--y", `${y * reach * STICK_RADIUS}px`);
    }
    this.apply(event.timeStamp);
  }

  private apply(eventMs: number): void {
    if (this.playing() || this.buttons === 0) this.controls()?.hold("touch", this.buttons | this.walking, eventMs);
  }
}
