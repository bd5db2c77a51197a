"""An engine whose time passes only as its tests say."""

from __future__ import annotations

from reverie.core import ActionSpace, Frame
from reverie.engine import Engine, Handle
from reverie.session import SessionState
from reverie.world import Start
from tests.fakes import SPACE, FakeClock, FakeRuntime, fake_config, fake_world


class Bench:
    """An engine without a thread: time passes only as work is done or waited for."""

    def __init__(
        self,
        num_slots: int = 2,
        step_ms: float = 5.0,
        commit_ms: float = 2.0,
        prefill_ms: float = 2.0,
        space: ActionSpace = SPACE,
    ) -> None:
        self.clock = FakeClock()
        self.world = fake_world(fake_config(space=space))
        self.runtime = FakeRuntime(self.world, self.clock, step_ms, commit_ms, prefill_ms)
        self.engine = Engine(self.world, self.runtime, num_slots, self.clock)
        self.engine.prepare()

    def run(self, seconds: float, *handles: Handle) -> dict[str, list[Frame]]:
        """Let the engine work; collects the frames of these sessions by id."""
        until_s = self.clock() + seconds
        frames: dict[str, list[Frame]] = {handle.session_id: [] for handle in handles}
        while self.clock() < until_s:
            wait_s = self.engine.tick()
            for handle in handles:
                if (frame := handle.take()) is not None:
                    frames[handle.session_id].append(frame)
            if wait_s != 0:
                left_s = until_s - self.clock()
                self.clock.advance(max(min(left_s, wait_s or left_s), 0) + 1e-6)
        return frames

    def play(self, **options: int | str | Start) -> Handle:
        """A session that has just begun to play."""
        handle = self.engine.open(**options)  # type: ignore[arg-type]
        while handle.state is not SessionState.PLAYING:
            self.clock.advance(self.engine.tick() or 0)
        return handle
