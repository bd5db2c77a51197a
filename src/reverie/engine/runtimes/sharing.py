"""Which sessions go through the networks together, and on which thread."""

from __future__ import annotations

from collections.abc import Sequence

GROUPS = (4, 2, 1)
"""Sessions in one pass; more of them save no more."""


def share_out(slots: Sequence[int], num_threads: int) -> list[Sequence[int]]:
    """Ascending slots, cut into groups of sizes in GROUPS in which each follows the other: the
    largest that there are, but no thread has more than its share.
    """
    share = -(-len(slots) // num_threads)
    groups: list[Sequence[int]] = []
    left = list(slots)
    while left:
        runs = (list(range(left[0], left[0] + size)) for size in GROUPS if size <= share)
        groups.append(next(run for run in runs if run == left[: len(run)]))
        left = left[len(groups[-1]) :]
    groups.sort(key=len, reverse=True)
    while _longest(groups, num_threads) > share:
        i = max(i for i, group in enumerate(groups) if len(group) > 1)
        half = len(groups[i]) // 2
        groups[i : i + 1] = [groups[i][:half], groups[i][half:]]
    return groups


def _longest(groups: Sequence[Sequence[int]], num_threads: int) -> int:
    """Sessions of the thread that has most, when each takes the next group as it is free."""
    taken = [0] * num_threads
    for group in groups:
        taken[taken.index(min(taken))] += len(group)
    return max(taken)
