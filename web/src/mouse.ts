/** The mouse: pointer lock where the browser grants it, else dragging turns the camera. */

import type { Controls } from "./controls";

export class Mouse {
  degreesPerPixel = 0.15;
  /** The player left the pointer lock (Esc does that before a page sees the key). */
  onUnlocked: () => void = () => {};

  private locked = false;
  private rawMoves = false;

  constructor(
    private readonly stage: HTMLElement,
    private readonly controls: () => Controls | null,
    private readonly playing: () => boolean,
  ) {
    document.addEventListener("pointerlockchange", () => {
      const had = this.locked;
      this.locked = document.pointerLockElement === stage;
      if (had && !this.locked) this.onUnlocked();
    });
    stage.addEventListener("pointerdown", (event) => this.button(event, true));
    stage.addEventListener("pointerup", (event) => this.button(event, false));
    // A second button pressed while one is held is a move in the eyes of pointer events.
    stage.addEventListener("mousedown", (event) => this.hold(event));
    stage.addEventListener("mouseup", (event) => this.hold(event));
    stage.addEventListener("pointermove", (event) => this.aligned(event));
    // Movement as it happens, 7 ms sooner on average than pointermove, which waits for the next animation frame.
    stage.addEventListener("pointerrawupdate", (event) => this.raw(event as PointerEvent));
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** Needs a user's gesture; without one, or where there is no mouse, nothing happens. */
  async lock(): Promise<void> {
    if (!this.controls()?.space.camera_limit || !matchMedia("(any-pointer: fine)").matches) return;
    try {
      await (this.stage.requestPointerLock({ unadjustedMovement: true }) as Promise<void> | undefined);
    } catch {
      // No raw movement here, or no lock at all; the second refusal leaves dragging.
      await (this.stage.requestPointerLock() as Promise<void> | undefined)?.catch(() => {});
    }
  }

  unlock(): void {
    this.locked = false;
    if (document.pointerLockElement) document.exitPointerLock();
  }

  private button(event: PointerEvent, down: boolean): void {
    if (event.pointerType !== "mouse" || !this.playing() || this.locked) return;
    if (down) {
      this.stage.setPointerCapture(event.pointerId);
      void this.lock();
    }
  }

  private hold(event: MouseEvent): void {
    const controls = this.controls();
    if (!controls || !this.playing()) return;
    event.preventDefault();
    // The buttons bits are left, right, middle; device keys count left, middle, right.
    const held = [1, 4, 2].map((bit, index) => (event.buttons & bit ? `mouse${index}` : ""));
    const keys = held.reduce((all, key) => all | controls.bit(controls.space.keymap[key]), 0);
    controls.hold("mouse", keys, event.timeStamp);
  }

  private raw(event: PointerEvent): void {
    this.rawMoves ||= event.movementX !== 0 || event.movementY !== 0;
    if (this.rawMoves) this.move(event);
  }

  /** Used where there are no raw updates, or where they do not say how far the mouse moved. */
  private aligned(event: PointerEvent): void {
    if (!this.rawMoves) this.move(event);
  }

  private move(event: PointerEvent): void {
    if (event.pointerType !== "mouse" || !this.playing()) return;
    if (!this.locked && event.buttons === 0) return;
    const first = event.getCoalescedEvents?.()[0] ?? event;
    const scale = this.degreesPerPixel;
    this.controls()?.turn(event.movementX * scale, event.movementY * scale, first.timeStamp);
  }

  private wheel(event: WheelEvent): void {
    if (!this.playing()) return;
    event.preventDefault();
    if (event.deltaY) this.controls()?.selectNext(Math.sign(event.deltaY), event.timeStamp);
  }
}
