"""Whether a session's place is still used, and how long it may be. Pure: values in, values out."""

from __future__ import annotations

import math

from reverie.server.limits import SocketLimits
from reverie.session import SessionState

CROWDED_EVICT_S = 3.0
"""Paused, until the place goes to somebody who waits for one."""


def away(
    state: SessionState, in_state_s: float, silent_s: float, limits: SocketLimits, is_crowded: bool
) -> SessionState | None:
    """The state of a session whose place is free for others from now on; None to keep it.

    in_state_s: how long it has been in its state. silent_s: since its client was heard. is_crowded:
    somebody waits for a place.
    """
    if state in (SessionState.PLAYING, SessionState.IDLE):
        if silent_s > limits.silent_s:
            return SessionState.LOST
        if state is SessionState.IDLE and in_state_s > limits.pause_after_s:
            return SessionState.PAUSED
    elif state is SessionState.PAUSED:
        patience_s = min(limits.evict_after_s, limits.idle_s)
        if in_state_s > (min(CROWDED_EVICT_S, patience_s) if is_crowded else patience_s):
            return SessionState.PAUSED
    return None


def time_limit_s(limits: SocketLimits, granted_s: float | None) -> float:
    """Of play: the server's limit or that of the player's token; infinite without either."""
    return min(limits.time_limit_s, math.inf if granted_s is None else granted_s)
