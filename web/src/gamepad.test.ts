import { expect, test, vi } from "vitest";
import { Controls } from "./controls";
import { Gamepads } from "./gamepad";

test.each([
  ["the only one", []],
  ["one of two", [{ mapping: "" }]],
])("a pad that goes away, %s, lets go of its keys and its stick", (_, left) => {
  const buttons = Array.from({ length: 17 }, () => ({ pressed: false }));
  const pad = { mapping: "standard", buttons, axes: [0, -1, 1, 0], timestamp: 0 };
  let pads: unknown[] = [pad, ...left];
  let poll = () => {};
  const window = new EventTarget();
  vi.stubGlobal("window", window);
  vi.stubGlobal("navigator", { getGamepads: () => pads });
  vi.stubGlobal("requestAnimationFrame", (callback: () => void) => (poll = callback));
  const controls = new Controls({ keys: ["forward"], camera_limit: 15, num_slots: 0, keymap: {}, pitch_limits: [-90, 90] }, 20);
  new Gamepads(
    () => controls,
    () => true,
  );
  window.dispatchEvent(new Event("gamepadconnected"));
  poll();
  expect(controls.read()).toMatchObject({ keys: 1, yaw: 10 });
  pads = [null, ...left];
  poll();
  controls.framesArrived(1, true);
  expect(controls.read()).toMatchObject({ keys: 0, yaw: 0 });
});
