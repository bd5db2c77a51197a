/** Device keys, their bindings in the world, and what people call them. */

import type { ActionSpace } from "./protocol";

/** The device key of a keyboard event, by its place on the keyboard: WASD lies the same on every layout. */
export function deviceKey(code: string): string {
  const plain = /^(?:Key|Digit)(.)$/.exec(code)?.[1];
  if (plain) return plain.toLowerCase();
  const side = /^(Shift|Control|Alt|Meta)(?:Left|Right)$/.exec(code)?.[1];
  return (side ?? code).toLowerCase();
}

/** Keys that turn the camera without a mouse, as directions [right, down]; the world's own bindings come first. */
const LOOK_KEYS: Record<string, [number, number]> = {
  j: [-1, 0],
  l: [1, 0],
  i: [0, -1],
  k: [0, 1],
  comma: [-1, 0],
  period: [1, 0],
  numpad4: [-1, 0],
  numpad6: [1, 0],
  numpad8: [0, -1],
  numpad2: [0, 1],
};

export function lookKeys(space: ActionSpace): Record<string, [number, number]> {
  if (!space.camera_limit) return {};
  return Object.fromEntries(Object.entries(LOOK_KEYS).filter(([key]) => !(key in space.keymap)));
}

/** Keys that go back in time, where the world has no other use for them. */
export function rewindKeys(space: ActionSpace): string[] {
  return ["backspace", "r"].filter((key) => !(key in space.keymap));
}

/** Standard gamepad buttons for the keys that worlds usually have. */
export const GAMEPAD_BUTTONS: Record<string, { button: number; label: string }> = {
  jump: { button: 0, label: "A" },
  sprint: { button: 10, label: "Left stick, pressed" },
  break: { button: 7, label: "Right trigger" },
  use: { button: 6, label: "Left trigger" },
};
/** For the keys of a world that has others. */
export const SPARE_BUTTONS = [
  { button: 2, label: "X" },
  { button: 3, label: "Y" },
  { button: 1, label: "B" },
];
export const STICK_KEYS = ["forward", "back", "left", "right"] as const;

export function gamepadButtons(space: ActionSpace): Map<string, { button: number; label: string }> {
  const spare = [...SPARE_BUTTONS];
  const buttons = new Map<string, { button: number; label: string }>();
  for (const key of space.keys) {
    if ((STICK_KEYS as readonly string[]).includes(key)) continue;
    const found = GAMEPAD_BUTTONS[key] ?? spare.shift();
    if (found) buttons.set(key, found);
  }
  return buttons;
}

const KEY_LABELS: Record<string, string> = {
  arrowup: "↑",
  arrowdown: "↓",
  arrowleft: "←",
  arrowright: "→",
  space: "Space",
  shift: "Shift",
  control: "Ctrl",
  mouse0: "Left click",
  mouse1: "Middle click",
  mouse2: "Right click",
  comma: ",",
  period: ".",
  backspace: "Backspace",
};

export function keyLabel(key: string): string {
  return KEY_LABELS[key] ?? key.toUpperCase();
}

export function title(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
}

/** What the help panel lists: rows of [what, keycaps], by group. */
export function helpRows(space: ActionSpace): { group: string; rows: [string, string[]][] }[] {
  const world = space.keys.map((key): [string, string[]] => [
    title(key),
    Object.keys(space.keymap).filter((device) => space.keymap[device] === key).map(keyLabel),
  ]);
  const look = lookKeys(space);
  const lookCaps = ["ijkl", ["comma", "period"]]
    .map((keys) => [...keys].filter((key) => key in look).map(keyLabel).join(" "))
    .filter(Boolean);
  if (space.camera_limit) world.push(["Look around", ["Mouse", ...lookCaps]]);
  if (space.num_slots) world.push(["Choose a slot", ["Wheel", `1 – ${space.num_slots}`]]);
  if (space.attributes) world.push(["Make a wish", ["Enter"]]);
  const pad: [string, string[]][] = [["Move", ["Left stick"]]];
  if (space.camera_limit) pad.push(["Look around", ["Right stick"]]);
  for (const [key, { label }] of gamepadButtons(space)) pad.push([title(key), [label]]);
  if (space.num_slots) pad.push(["Choose a slot", ["LB", "RB"]]);
  pad.push(["Menu", ["Start"]]);
  return [
    { group: "Keyboard and mouse", rows: world },
    { group: "Gamepad", rows: pad },
    {
      group: "Page",
      rows: ([
        ["Menu, pause", ["Esc"]],
        ["A few seconds back", rewindKeys(space).map(keyLabel)],
        ["Figures", ["H"]],
        ["Full screen", ["F"]],
        ["This help", ["?"]],
      ] satisfies [string, string[]][]).filter(([, caps]) => caps.length),
    },
  ];
}
