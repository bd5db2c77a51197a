"""What a client asks for, checked against the world that is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import simplejpeg

from reverie.server.protocol import CloseCode, ProtocolError
from reverie.world import start_from_image

if TYPE_CHECKING:
    from reverie.world import Start, World

MAX_SECONDS = 3600.0
MAX_PHOTONS = 32


@dataclass(frozen=True, slots=True)
class PlayRequest:
    """The query of a socket's address. None: whatever the engine chooses."""

    start: str | None = None
    seed: int | None = None
    num_steps: int | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str], world: World) -> PlayRequest:
        """Raises ProtocolError on a world, start, seed or number of steps that there is not."""
        name = query.get("world") or world.config.name
        if name != world.config.name:
            raise ProtocolError(
                CloseCode.UNKNOWN,
                f"no world {name!r:.60}; this server plays {world.config.name!r}",
            )
        return cls(
            known_start(world, query.get("start") or None),
            known_seed(_number(query.get("seed"))),
            known_steps(world, _number(query.get("steps"))),
        )


def known_start(world: World, name: Any) -> str | None:
    """The name of one of the world's starts, or None. Raises ProtocolError on any other."""
    names = [start.name for start in world.starts]
    if name is not None and name not in names:
        raise ProtocolError(
            CloseCode.UNKNOWN, f"no start {name!r:.60}; this world has {', '.join(names) or 'none'}"
        )
    return name


def start_from_picture(world: World, jpeg: bytes) -> Start:
    """Where a session begins that a player's picture is the start of. Raises ProtocolError on what
    is no JPEG of the world's size, and for a simulator, which knows its own places only.
    """
    if not world.config.denoiser:
        raise _malformed("a simulator cannot begin from a picture; choose one of its starts")
    try:
        height, width = (int(side) for side in simplejpeg.decode_jpeg_header(jpeg)[:2])
        # Looked at before it is decoded: the page has fitted it, others must.
        if (height, width) == world.config.frame_shape[:2]:
            return start_from_image(world.config, simplejpeg.decode_jpeg(jpeg, colorspace="RGB"))
    except ValueError:
        raise _malformed("the picture is not a whole JPEG") from None
    expected = f"{world.config.width} x {world.config.height}"
    raise _malformed(f"picture of {width} x {height} pixels; expected {expected}, the world's size")


def known_steps(world: World, num_steps: Any) -> int:
    """The fewest that the world was trained for if num_steps is None."""
    known = world.config.denoising_steps
    if num_steps is None:
        return min(known)
    if isinstance(num_steps, bool) or num_steps not in known:
        raise _malformed(f"steps {num_steps!r:.40}; this world was trained for {list(known)}")
    return int(num_steps)


def known_prompt(text: Any) -> str:
    """A wish in words. Raises ProtocolError on anything else."""
    if not isinstance(text, str) or not text.strip():
        raise _malformed(f"prompt {text!r:.40}; expected a wish in words")
    return text


def known_seconds(seconds: Any) -> float:
    """A time to go back by. Raises ProtocolError on anything else."""
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and 0 < seconds <= MAX_SECONDS):
        raise _malformed(f"seconds {seconds!r:.40}; expected more than 0")
    return float(seconds)


def known_photons(times_ms: Any) -> list[float]:
    """Action-to-photon times as a client measured them, milliseconds. Raises ProtocolError on
    anything else.
    """
    numbers = [t for t in times_ms if type(t) in (int, float)] if type(times_ms) is list else []
    if not 0 < len(numbers) == len(times_ms) <= MAX_PHOTONS:
        raise _malformed(f"photon times {times_ms!r:.40}; expected up to {MAX_PHOTONS} numbers")
    return [float(t) for t in numbers if 0 <= t < 60_000]


def known_seed(seed: Any) -> int | None:
    """A seed that an engine takes, or None. Raises ProtocolError on anything else."""
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    if seed is not None and not (whole and 0 <= seed < 2**64):
        raise _malformed(f"seed {seed!r:.40}; expected a whole number from 0 to 2**64 - 1")
    return seed


def _malformed(line: str) -> ProtocolError:
    return ProtocolError(CloseCode.MALFORMED, line)


def _number(text: str | None) -> int | str | None:
    """What a query says, as a number if it is one; the checks above refuse the rest."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 20 else text
