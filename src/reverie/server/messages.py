"""The JSON bodies of the socket's messages, as types. The page's TypeScript types are written from
these (`scripts/protocol_types.py`); docs/protocol.md tells when each is sent.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

StateName = Literal["warming", "queued", "playing", "idle", "paused", "ended"]
KeptName = Literal["save", "fork", "share"]


class ActionSpaceBody(TypedDict):
    """What a world can be told. Bit i of an ACTION's keys is keys[i]; num_slots and camera_limit
    (degrees per frame) are 0 in a world without. attributes: what prompts can change, and the
    values it can have, the usual one first; left out by a world that takes none.
    """

    keys: list[str]
    camera_limit: float
    num_slots: int
    keymap: dict[str, str]
    pitch_limits: list[float]
    attributes: NotRequired[dict[str, list[str]]]


class StartBody(TypedDict):
    """A place where a session can begin."""

    name: str
    title: str


class WorldBody(TypedDict):
    """What a client must know to play a world. steps: passes per frame that it was trained for.
    generated: false for a simulator that is played for comparison. prompts: examples of what can be
    wished for; a world without any takes none.
    """

    world: str
    width: int
    height: int
    fps: float
    action_space: ActionSpaceBody
    steps: list[int]
    generated: bool
    prompts: list[str]
    starts: list[StartBody]


class HelloBody(WorldBody):
    """HELLO. resume: comes back to this session, within resume_s of a lost connection. rewind_s:
    how far back one can go. time_limit_s: of play, null for none.
    """

    protocol: int
    resume: str
    resume_s: float
    rewind_s: float
    time_limit_s: float | None


class StateBody(TypedDict):
    """STATE. reason: why it ended or paused by itself. position, from 1, and expected_wait_s: in
    the queue. replay: a replay still runs. left_s: until the time limit, where that is near.
    """

    state: StateName
    reason: NotRequired[str]
    position: NotRequired[int]
    expected_wait_s: NotRequired[float]
    replay: NotRequired[bool]
    left_s: NotRequired[float]


class PromptBody(TypedDict):
    """PROMPT, the answer to a wish: the attributes that it set and the first frame that shows them,
    or an error, one line that says why it did nothing.
    """

    text: str
    attributes: NotRequired[dict[str, str]]
    frame_index: NotRequired[int]
    error: NotRequired[str]


class AnswerBody(TypedDict):
    """ANSWER. To save: url, where the file is fetched from, once and soon, its name and bytes. To
    fork: resume, the token of the new session. To share: replay, a link. Or else an error.
    """

    command: KeptName
    url: NotRequired[str]
    name: NotRequired[str]
    bytes: NotRequired[int]
    resume: NotRequired[str]
    replay: NotRequired[str]
    error: NotRequired[str]


class ErrorBody(TypedDict):
    """ERROR: one line for the player; the socket closes after it."""

    error: str


class PlainCommand(TypedDict):
    """A COMMAND that needs no more than its name."""

    command: Literal["pause", "resume", "save", "fork", "share", "end"]


class StepsCommand(TypedDict):
    """Passes per frame from now on, one of HELLO's steps."""

    command: Literal["steps"]
    steps: int


class BeginCommand(TypedDict):
    """Begin again: at the start of that name, or where the session began; with that seed, or one
    that is drawn.
    """

    command: Literal["restart", "start"]
    name: NotRequired[str]
    seed: NotRequired[int]


class RewindCommand(TypedDict):
    """Go back by so many seconds, as far as is remembered."""

    command: Literal["rewind"]
    seconds: float


class PromptCommand(TypedDict):
    """A wish in words."""

    command: Literal["prompt"]
    text: str


class PhotonCommand(TypedDict):
    """What the client measured from an action to the picture that answers it, milliseconds; up to
    32 at a time.
    """

    command: Literal["photon"]
    ms: list[float]


Command = PlainCommand | StepsCommand | BeginCommand | RewindCommand | PromptCommand | PhotonCommand
"""The JSON of COMMAND."""
