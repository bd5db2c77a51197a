"""Prompts on their way through the engine: from which frame on they count, and how long."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from reverie.core import Action, ReverieError
from reverie.engine.handle import Handle, Prompted
from reverie.engine.runtime import Batch
from tests.engine.bench import Bench
from tests.fakes import PROMPTED


def prompted(handle: Handle, text: str) -> Prompted:
    """What the prompt did."""
    answers: list[Prompted] = []
    handle.prompt(text, answers.append)
    return answers[0]


def told(bench: Bench) -> Mapping[str, str]:
    """The attributes in the newest step."""
    batch = next(batch for call, batch in reversed(bench.runtime.calls) if call == "step")
    assert isinstance(batch, Batch)
    return PROMPTED.decode(batch.actions[0]).attributes


def test_a_prompt_counts_from_the_next_frame_on_and_stays() -> None:
    bench = Bench(space=PROMPTED)
    handle = bench.play()
    bench.run(0.2, handle)
    before = handle._session.frame_index
    assert prompted(handle, "it shall rain") == ({"weather": "rain"}, before)
    assert prompted(handle, "at night").attributes == {"time_of_day": "night"}
    handle.act(PROMPTED.encode(Action({"forward"})), 1, bench.clock())
    frames = bench.run(0.2, handle)[handle.session_id]
    assert frames[0].frame_index == before
    assert told(bench) == {"weather": "rain", "time_of_day": "night"}
    handle.pause()
    handle.resume()
    bench.run(0.1, handle)
    assert told(bench)["weather"] == "rain"
    handle.restart()
    bench.run(0.2, handle)
    assert told(bench) == {"weather": "clear", "time_of_day": "day"}


def test_a_prompt_that_means_nothing_changes_nothing() -> None:
    with pytest.raises(ReverieError, match="world 'fake' takes no prompts"):
        Bench().play().prompt("rain", print)
    prompted = Bench(space=PROMPTED)
    handle = prompted.play()
    with pytest.raises(ReverieError, match="it can change weather"):
        handle.prompt("a castle", print)
    prompted.run(0.1, handle)
    assert told(prompted)["weather"] == "clear"


def test_a_prompt_made_while_it_warms_is_kept() -> None:
    bench = Bench(num_slots=1, space=PROMPTED)
    handle = bench.engine.open()
    handle.prompt("rain", print)
    bench.run(0.2, handle)
    assert told(bench)["weather"] == "rain"


def test_a_prompt_while_a_frame_is_drawn_shows_in_the_one_after() -> None:
    bench = Bench(space=PROMPTED)
    handle = bench.play()
    original, answers = bench.runtime.step, []

    def step(batch: Batch) -> np.ndarray:
        if not answers:
            answers.append((batch.frame_indices[0], prompted(handle, "rain").frame_index))
        return original(batch)

    bench.runtime.step = step  # type: ignore[method-assign]
    bench.run(0.2, handle)
    ((drawn, shown),) = answers
    assert shown == drawn + 1
    handle.close()
    with pytest.raises(ReverieError, match="the session has ended"):
        handle.prompt("rain", print)
