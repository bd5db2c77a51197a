import { expect, test, vi } from "vitest";
import { Controls } from "./controls";
import { Touch } from "./touch";

test("a thumb that is lifted in the menu does not keep the stick", () => {
  vi.stubGlobal("window", new EventTarget());
  vi.stubGlobal("innerWidth", 800);
  vi.stubGlobal("matchMedia", () => ({ matches: false }));
  const stage = Object.assign(new EventTarget(), { setPointerCapture: () => {} });
  const knob = { classList: { toggle: () => {} }, removeAttribute: () => {}, style: { setProperty: () => {} } };
  const panel = { querySelector: () => knob };
  const controls = new Controls({ keys: ["forward"], camera_limit: 15, num_slots: 0, keymap: {}, pitch_limits: [-90, 90] }, 20);
  let playing = true;
  new Touch(
    stage as unknown as HTMLElement,
    panel as unknown as HTMLElement,
    () => controls,
    () => playing,
  );
  const point = (type: string, pointerId: number, clientY: number) =>
    stage.dispatchEvent(Object.assign(new Event(type), { pointerType: "touch", pointerId, clientX: 100, clientY }));

  point("pointerdown", 1, 300);
  playing = false;
  controls.release();
  point("pointerup", 1, 300);
  playing = true;
  point("pointerdown", 2, 300);
  point("pointermove", 2, 200);
  expect(controls.read().keys).toBe(1);
});
