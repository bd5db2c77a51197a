/** What the dashboard plots, and how it is read from the server's status. */

import { niceTop } from "./admin-plot";
import type { EngineBody, Percentiles, StatusBody } from "./status.generated";

/** A status, and when it came, in milliseconds. */
export interface Sample {
  ms: number;
  status: StatusBody;
}

export type Reading = Record<string, number | null>;

export interface Panel {
  title: string;
  note: string;
  stacked?: boolean;
  stepped?: boolean;
  whole?: boolean;
  /** Values by name; before: the sample before it. */
  read: (now: Sample, before: Sample | null) => Reading;
  written: (value: number) => string;
  /** What is shown of all values, if not from 0 to the greatest. */
  range?: (values: number[]) => [number, number];
  /** Names of variables of the style sheet, for names that always mean the same. */
  colors?: Record<string, string>;
  /** Said instead of values where there are none. */
  nothing?: string;
}

const STATES: Record<string, string> = {
  playing: "present",
  idle: "network",
  warming: "generate",
  queued: "decode",
  paused: "input",
  lost: "encode",
};
const PERCENTILES = { p50: "present", p95: "lamp", p99: "encode" };
const STAGES = { draw: "generate", commit: "network", warm: "present", snapshot: "decode" };

export const PANELS: Panel[] = [
  {
    title: "Sessions by state",
    note: "all worlds; a lost one waits for its player to come back",
    stacked: true,
    whole: true,
    read: ({ status }) => Object.fromEntries(Object.keys(STATES).map((state) => [state, status.sessions[state] ?? 0])),
    written: count,
    colors: STATES,
  },
  {
    title: "Waiting",
    note: "for a place, by world",
    stepped: true,
    whole: true,
    read: ({ status }) => Object.fromEntries(status.worlds.map((world) => [world.world || "a world", world.waiting])),
    written: count,
  },
  {
    title: "Deadlines held",
    note: "part of the frames that were drawn before they were due",
    read: ({ status }) => byEngine(status, (engine) => engine.figures?.hit_rate),
    written: held,
    range: (values) => [Math.min(0.9, ...values.map((value) => Math.floor(value * 10) / 10)), 1],
  },
  {
    title: "Late frames",
    note: "a second; at the sockets, by half a frame time or more",
    read: (now, before) => ({
      "at the sockets": rate(now, before, (status) => status.frames.num_late),
      "in the engines": rate(now, before, (status) => sum(status, (engine) => engine.figures?.num_late)),
    }),
    written: (value) => (value < 10 && value % 1 ? value.toFixed(1) : count(value)),
    colors: { "at the sockets": "encode", "in the engines": "decode" },
  },
  {
    title: "Frame gap",
    note: "between two frames of a session",
    read: ({ status }) => ({ ...none(PERCENTILES), ...status.frames.gap_ms }),
    written: milliseconds,
    colors: PERCENTILES,
  },
  {
    title: "Quality level",
    note: "0 is best; each further one spends less on a frame",
    stepped: true,
    whole: true,
    read: ({ status }) => byEngine(status, (engine) => engine.figures?.level),
    written: count,
    range: (values) => [0, Math.max(3, ...values)],
  },
  {
    title: "Load",
    note: "part of every period that its sessions need",
    read: ({ status }) => byEngine(status, (engine) => engine.figures?.load),
    written: (value) => percent(value),
    range: (values) => [0, niceTop(Math.max(1, ...values))],
  },
  {
    title: "Passes per frame",
    note: "sessions by the passes that their next frame gets",
    stacked: true,
    stepped: true,
    whole: true,
    read: ({ status }) => granted(status),
    written: count,
  },
  {
    title: "Device time by stage",
    note: "of all devices together; drawing is what a player waits for",
    stacked: true,
    read: ({ status }) => shares(status),
    written: (value) => percent(value),
    colors: STAGES,
  },
  {
    title: "A step by stage",
    note: "99th percentile of the slowest engine",
    read: ({ status }) => slowest(status),
    written: milliseconds,
    colors: STAGES,
  },
  {
    title: "Memory",
    note: "of every process",
    stacked: true,
    read: ({ status }) => ({
      server: status.memory_bytes,
      ...byEngine(status, (engine) => engine.figures?.memory_bytes),
    }),
    written: bytes,
  },
  {
    title: "Power",
    note: "of processors and GPUs, as far as the machine tells",
    read: ({ status }) => ({ watts: status.power.watts }),
    written: (value) => `${value.toFixed(value > 0 && value < 10 ? 1 : 0)} W`,
    colors: { watts: "lamp" },
    nothing: "This machine does not tell, or only its administrator.",
  },
];

export function count(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 1 : 0);
}

export function percent(value: number, digits = 0): string {
  return `${(100 * value).toFixed(digits)} %`;
}

/** Part of the deadlines that were held: all of them only where it is all of them. */
export function held(part: number): string {
  return `${Math.floor(1000 * part + 1e-6) / 10} %`;
}

export function milliseconds(value: number): string {
  return `${value.toFixed(value > 0 && value < 9.95 ? 1 : 0)} ms`;
}

export function bytes(value: number): string {
  return value >= 1e9 ? `${(value / 1e9).toFixed(1)} GB` : `${(value / 1e6).toFixed(0)} MB`;
}

/** Of a number that only grows; null where it began anew. */
export function rate(now: Sample, before: Sample | null, read: (status: StatusBody) => number): number | null {
  if (!before || now.ms <= before.ms || now.status.uptime_s < before.status.uptime_s) return null;
  const more = read(now.status) - read(before.status);
  return more < 0 ? null : (1e3 * more) / (now.ms - before.ms);
}

function byEngine(status: StatusBody, read: (engine: EngineBody) => number | null | undefined): Reading {
  return Object.fromEntries(status.engines.map((engine) => [engine.name, read(engine) ?? null]));
}

function sum(status: StatusBody, read: (engine: EngineBody) => number | undefined): number {
  return status.engines.reduce((total, engine) => total + (read(engine) ?? 0), 0);
}

function none(names: object): Reading {
  return Object.fromEntries(Object.keys(names).map((name) => [name, null]));
}

function granted(status: StatusBody): Reading {
  const found: Record<string, number> = {};
  for (const { figures } of status.engines) {
    for (const [steps, sessions] of Object.entries(figures?.granted ?? {})) found[steps] = (found[steps] ?? 0) + sessions;
  }
  return found;
}

function shares(status: StatusBody): Reading {
  const found = none(STAGES);
  for (const { figures } of status.engines) {
    for (const [stage, told] of Object.entries(figures?.stages_ms ?? {})) {
      if (typeof told?.share === "number") found[stage] = (found[stage] ?? 0) + told.share;
    }
  }
  return found;
}

function slowest(status: StatusBody): Reading {
  const found = none(STAGES);
  for (const { figures } of status.engines) {
    for (const [stage, told] of Object.entries<Percentiles | null>(figures?.stages_ms ?? {})) {
      if (told) found[stage] = Math.max(found[stage] ?? 0, told.p99);
    }
  }
  return found;
}
