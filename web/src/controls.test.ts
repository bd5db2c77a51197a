import { beforeEach, expect, test } from "vitest";
import { Controls } from "./controls";

const space = { keys: ["forward", "jump"], camera_limit: 15, num_slots: 3, keymap: {}, pitch_limits: [-90, 90] };
let controls: Controls;

beforeEach(() => {
  controls = new Controls(space, 20);
});

test("keys of all devices are held together", () => {
  controls.hold("keyboard", controls.bit("forward"), 0);
  controls.hold("touch", controls.bit("jump"), 0);
  expect(controls.read().keys).toBe(0b11);
  controls.hold("keyboard", 0, 0);
  expect(controls.read().keys).toBe(0b10);
});

test("camera turns add up and are handed out once", () => {
  controls.turn(2, 1, 0);
  controls.turn(3, -2, 0);
  expect(controls.read()).toMatchObject({ yaw: 5, pitch: -1 });
  expect(controls.read()).toMatchObject({ yaw: 0, pitch: 0 });
});

test("a look key turns by one frame's worth for each frame, the first at once and not twice", () => {
  controls.turnAtRate("keyboard", 100, 0, 0);
  expect(controls.read().yaw).toBe(5);
  controls.framesArrived(1, false);
  expect(controls.read().yaw).toBe(0);
  controls.framesArrived(1, true);
  expect(controls.read().yaw).toBe(5);
  controls.framesArrived(2, true);
  expect(controls.read().yaw).toBe(10);
  controls.turnAtRate("keyboard", 0, 0, 0);
  controls.framesArrived(1, true);
  expect(controls.read().yaw).toBe(0);
});

test("slots stay within the world's", () => {
  controls.selectNext(-1, 0);
  expect(controls.read().slot).toBe(3);
  controls.select(9, 0);
  expect(controls.read().slot).toBe(3);
});

test("letting go lets go of everything", () => {
  controls.hold("mouse", 1, 0);
  controls.turn(5, 5, 0);
  controls.release();
  expect(controls.read()).toEqual({ keys: 0, yaw: 0, pitch: 0, slot: 1 });
});
