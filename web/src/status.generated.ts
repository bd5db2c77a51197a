// Written by scripts/protocol_types.py from status.py and usage.py: change that instead.

/** In milliseconds. */
export interface Percentiles {
  p50: number;
  p95: number;
  p99: number;
}

/** mean: in milliseconds, too. share: of the device's time, lately; null where nobody looked just before. */
export interface StageFigures {
  p50: number;
  p95: number;
  p99: number;
  mean: number;
  share: number | null;
}

/** level: of quality, 0 is best. load: part of every period that its sessions need. slowdown: against its cost table. granted: sessions by the passes that they get. hit_rate: part of the frames that were drawn before their deadline. busy_s, num_frames, num_late: since the process began. stages_ms: null where nothing of it happened lately. */
export interface EngineFigures {
  level: number;
  num_levels: number;
  load: number;
  slowdown: number;
  capacity: number;
  num_active: number;
  granted: Record<string, number>;
  fps: number | null;
  hit_rate: number | null;
  num_frames: number;
  num_late: number;
  busy_s: number;
  stages_ms: Record<string, StageFigures | null>;
  memory_bytes: number;
}

/** An engine. error: why it never came up. pid: of its process, null where it shares the server's. figures: while it is ready. */
export interface EngineBody {
  name: string;
  world: string;
  device: string;
  state: string;
  error: string | null;
  restarts: number;
  standby: boolean;
  pid: number | null;
  figures: EngineFigures | null;
}

/** Sessions of a world by state. expected_wait_s: of who came now; null where nobody knows. */
export interface WorldSessions {
  world: string;
  sessions: Record<string, number>;
  waiting: number;
  expected_wait_s: number | null;
}

/** Frames at the sockets, of all sessions. num_late: more than half a frame time too late. */
export interface FrameFigures {
  fps: number | null;
  num_sent: number;
  num_late: number;
  gap_ms: Percentiles | null;
}

/** of: what is measured; nothing is where that is empty. joules: since the server began. */
export interface PowerFigures {
  of: string[];
  watts: number | null;
  joules: number | null;
  joules_per_frame: number | null;
}

/** What was used, as it is told; see `Usage`. */
export interface UsageBody {
  sessions: number;
  seconds: number;
  frames: number;
  device_s: number;
  joules: number | null;
  dollars: number | null;
}

/** Everything about a server. state: warming, ready, failed or closing. recovered: times that a session lost its engine and was carried on. queue_ms: of who got a place in the last minutes. price_per_hour: dollars, of one device. memory_bytes: of the server's own process. */
export interface StatusBody {
  version: string;
  state: string;
  uptime_s: number;
  sessions: Record<string, number>;
  waiting: number;
  recovered: number;
  worlds: WorldSessions[];
  engines: EngineBody[];
  frames: FrameFigures;
  queue_ms: Percentiles | null;
  power: PowerFigures;
  price_per_hour: number | null;
  dollars_per_session_hour: number | null;
  memory_bytes: number | null;
  usage: UsageBody;
}
