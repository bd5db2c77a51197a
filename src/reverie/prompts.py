"""What a person wishes for, in their own words, as attributes of a world.

    prompter.understand("a snowy evening")   # {"time_of_day": "dusk", "weather": "snow"}

The text encoder is linear: every word is a bag of itself, its pair with the word before and its
groups of 3 to 5 letters, hashed into one vector, so that wordings nobody listed land near those
that somebody did. What each value of each attribute gets out of that vector is fitted in closed
form (ridge regression) to wordings, alone and several in a sentence, with letters missing. It is a
part of the world, a file of 64 KB, and needs numpy alone.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reverie.core import ReverieError, split_by_attribute

Attributes = Mapping[str, Sequence[str]]
"""`ActionSpace.attributes`: name -> the values it can have."""
Wordings = Mapping[str, Mapping[str, Sequence[str]]]
"""Attribute -> value -> ways to say it."""

MAX_LETTERS = 200
"""Of a wish; whoever writes more is asked to be brief."""
PROMPTER_FILE = "prompts.safetensors"
NUM_BUCKETS = 2048
THRESHOLD = 0.45
"""A value is meant from this score on; it is fitted to 1 where it is meant, and to 0 elsewhere."""
NUM_SENTENCES = 12000
RIDGE = 0.5

_SILENT = frozenset(
    """
    a an the i id im am it is are be let lets me my we you its make made do have get turn change
    into to of on in at as so please want would could can should like show give now more some
    very with and this that there here everything looks look feel where what who
    """.split()  # noqa: SIM905
)
"""Words that wishes are dressed in and that mean nothing by themselves."""

_JOINTS = (" ", ", ", " and ", " with ", " in the ", " at ", " on a ")
_ELSEWHERE = """
    dragon castle city car sword spaceship zombie house hello when why how jump walk run tree
    tower horse pizza music fast faster player flying fly door under water moonbase explode army
    robot cat dog people red blue purple black big bigger small gold silver money friend enemy
    fight help stop start pause again back left right up down open close build break place block
    stone wood river bridge mountain ship train road animal bird fish food drink eat sleep book
    story game level score win lose king queen wizard magic fire gun bomb kill die life world map
    play sing dance love hate happy sad angry beautiful ugly old young man woman child boy girl
    school work
""".split()  # noqa: SIM905
"""What no attribute means; it teaches the words around a wish to count for nothing."""


class Prompter:
    """Reads wishes for one world. weights: float32 [values of all attributes, NUM_BUCKETS]."""

    def __init__(self, attributes: Attributes, weights: NDArray[np.floating]) -> None:
        count = sum(len(values) for values in attributes.values())
        if weights.shape != (count, NUM_BUCKETS):
            raise ReverieError(
                f"a text encoder of shape {list(weights.shape)}; "
                f"expected {[count, NUM_BUCKETS]}: export the world again"
            )
        self.attributes = {name: tuple(values) for name, values in attributes.items()}
        self.weights = np.ascontiguousarray(weights, np.float32)  # as the file will hold it

    @classmethod
    def fit(cls, attributes: Attributes, wordings: Wordings | None = None) -> Prompter:
        """One that knows these wordings, and every value by its own name, unless that is a wording
        of another attribute. Takes a few seconds.

        Raises ReverieError on wordings of an attribute or a value that there is not, and on such
        as hold no word that could mean anything.
        """
        said = _every_wording(attributes, wordings or {})
        rng = np.random.default_rng(0)
        pairs = [" ".join(rng.choice(_ELSEWHERE, 2)) for _ in _ELSEWHERE]
        texts: list[str] = [*_ELSEWHERE, *pairs]
        meant: list[tuple[int, ...]] = [()] * len(texts)
        for phrases in said:
            for number, phrase in phrases:
                texts.append(phrase)
                meant.append((number,))
        for _ in range(NUM_SENTENCES):
            mentioned = rng.permutation(len(said))[: rng.integers(1, len(said) + 1)]
            picked = [said[i][rng.integers(len(said[i]))] for i in mentioned]
            parts = [phrase for _, phrase in picked]
            if rng.random() < 0.3:
                place = int(rng.integers(len(parts) + 1))
                parts.insert(place, str(rng.choice(_ELSEWHERE)))
            said_at_once = str(rng.choice(_JOINTS)).join(parts)
            if rng.random() < 0.3:  # a letter is missing
                gap = int(rng.integers(len(said_at_once)))
                said_at_once = said_at_once[:gap] + said_at_once[gap + 1 :]
            texts.append(said_at_once)
            meant.append(tuple(number for number, _ in picked))
        features = np.stack([encode(text) for text in texts]).astype(np.float64)
        wanted = np.zeros((len(texts), sum(len(values) for values in attributes.values())))
        for row, numbers in enumerate(meant):
            wanted[row, list(numbers)] = 1.0
        normal = features.T @ features + RIDGE * np.eye(NUM_BUCKETS)
        return cls(attributes, np.linalg.solve(normal, features.T @ wanted).T.astype(np.float16))

    def understand(self, text: str) -> dict[str, str]:
        """What the text says of the world: attribute -> value, at least one. Raises ReverieError,
        with what the world can do, where it says nothing that the world knows.
        """
        if len(text) > MAX_LETTERS:
            raise ReverieError(f"{len(text)} letters; say it in at most {MAX_LETTERS}")
        scores = split_by_attribute(self.attributes, self.weights @ encode(text))
        chosen = {
            name: self.attributes[name][int(own.argmax())]
            for name, own in scores
            if own.max() > THRESHOLD
        }
        if not chosen:
            raise ReverieError(f"this world does not know {text.strip()!r}; {self.abilities}")
        return chosen

    @cached_property
    def abilities(self) -> str:
        """What can be wished for, in one line."""
        parts = (
            f"{name.replace('_', ' ')} ({', '.join(values)})"
            for name, values in self.attributes.items()
        )
        return f"it can change {'; '.join(parts)}"

    def save(self, path: Path) -> None:
        """Into the folder of a world."""
        from safetensors.numpy import save_file

        save_file({"weights": self.weights.astype(np.float16)}, path / PROMPTER_FILE)
        (path / PROMPTER_FILE).chmod(0o644)  # safetensors leaves it to its owner alone

    @classmethod
    def load(cls, path: Path, attributes: Attributes) -> Prompter:
        """Of the world in this folder. Raises ReverieError where it is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return cls(attributes, load_file(path / PROMPTER_FILE)["weights"])
        except (SafetensorError, OSError, KeyError) as error:
            raise ReverieError(
                f"{path / PROMPTER_FILE} is missing or damaged ({error}); "
                "the world takes prompts and needs it: export it again"
            ) from None


def encode(text: str) -> NDArray[np.float32]:
    """float32 [NUM_BUCKETS]: words of the same weight, whatever their length, added up."""
    vector = np.zeros(NUM_BUCKETS, np.float32)
    found = re.findall(r"[^\W\d_]+", text.lower().replace("'", ""))
    words = list(dict.fromkeys(word for word in found if word not in _SILENT))
    for before, word in itertools.pairwise(["", *words]):
        marked = f"<{word}>"
        groups = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
        share = 1.0 / np.sqrt(max(len(groups), 1))
        for feature, weight in (
            (marked, 1.0),
            (f"{before} {word}", 0.7),
            *((group, 1.5 * share) for group in groups),
        ):
            digest = zlib.crc32(feature.encode())
            # The sign keeps two features that share a bucket from adding up to a third.
            vector[digest % NUM_BUCKETS] += weight * (1.0 if digest >> 31 else -1.0)
    return vector


def _every_wording(attributes: Attributes, wordings: Wordings) -> list[list[tuple[int, str]]]:
    """By attribute: the number of a value among the values of all, and a way to say it."""
    for name, ways in wordings.items():
        unknown = sorted(set(ways) - set(attributes.get(name, ())))
        if unknown or name not in attributes:
            raise ReverieError(f"wordings for {name} {unknown}; the world has no such attribute")
    silent = [
        phrase
        for ways in wordings.values()
        for phrases in ways.values()
        for phrase in phrases
        if not encode(phrase).any()
    ]
    if silent:
        raise ReverieError(f"wordings {silent} say nothing; expected words that mean something")
    numbers, found = itertools.count(), []
    for name, values in attributes.items():
        own = wordings.get(name, {})
        elsewhere = {p for n, w in wordings.items() if n != name for ps in w.values() for p in ps}
        found.append([])
        for value, number in zip(values, numbers, strict=False):
            plain = value.replace("_", " ")
            # "snowy" is a biome, but who says it means the weather: it is listed there.
            names = [f"{plain} {name.replace('_', ' ')}", *({plain} - elsewhere)]
            found[-1] += [(number, phrase) for phrase in (*names, *own.get(value, ()))]
    return found
