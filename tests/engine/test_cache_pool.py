from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.engine.cache_pool import CachePool, CacheShape, Slots

SHAPE = CacheShape(num_layers=2, num_heads=2, context=3, num_tokens=2, head_width=2)


def entries(value: float) -> list[np.ndarray]:
    """One frame's keys or values, told apart by layer."""
    return [np.full((2, 2, 2), value + i, np.float32) for i in range(2)]


@given(st.lists(st.one_of(st.none(), st.integers(-1, 5)), max_size=40))
def test_slots_are_never_given_twice(script: list[int | None]) -> None:
    """None allocates, a number gives that slot back."""
    slots, taken = Slots(4), set[int]()
    for step in script:
        assert slots.num_free == 4 - len(taken)
        assert slots.can_allocate() == (len(taken) < 4)
        if step is None and slots.can_allocate():
            slot = slots.allocate()
            assert slot == min(set(range(4)) - taken)
            taken.add(slot)
        elif step is None:
            with pytest.raises(RuntimeError, match="all 4 slots are taken"):
                slots.allocate()
        elif step in taken:
            slots.deallocate(step)
            taken.remove(step)
        else:
            message = "is free already" if 0 <= step < 4 else "is not one of"
            with pytest.raises(ValueError, match=message):
                slots.deallocate(step)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 12)), max_size=30))
def test_the_ring_keeps_the_newest_frame_of_each_place(writes: list[tuple[int, int]]) -> None:
    pool = CachePool(3, SHAPE)
    newest: dict[tuple[int, int], float] = {}
    for number, (slot, frame_index) in enumerate(writes):
        pool.write(slot, frame_index, entries(number), entries(-number))
        newest[slot, frame_index % 3] = number
    for slot in range(3):
        for place in range(3):
            part = slice(place * 2, place * 2 + 2)
            for layer in range(2):
                written = (slot, place) in newest
                expected = newest.get((slot, place), 0.0)
                k, v = pool.k[layer][slot, :, part], pool.v[layer][slot, :, part]
                assert (k == (expected + layer if written else 0)).all()
                assert (v == (-expected + layer if written else 0)).all()


def test_slot_arrays_are_the_slots_own_memory() -> None:
    pool = CachePool(3, SHAPE)
    for name, array in pool.slot_arrays(1).items():
        kind, layer = name.split(".")
        whole = (pool.k if kind == "cache_k" else pool.v)[int(layer)]
        assert np.shares_memory(array, whole[1])
        assert array.shape == SHAPE.slot
        assert array.flags.c_contiguous


def test_slot_arrays_copy_a_session_and_only_it() -> None:
    pool = CachePool(3, SHAPE)
    pool.write(0, 1, entries(5), entries(6))
    saved = {name: array.copy() for name, array in pool.slot_arrays(0).items()}
    for name, array in pool.slot_arrays(2).items():
        array[:] = saved[name]
    for layer in range(2):
        np.testing.assert_array_equal(pool.k[layer][2], pool.k[layer][0])
        np.testing.assert_array_equal(pool.v[layer][2], pool.v[layer][0])
        assert not pool.k[layer][1].any()


def test_memory_is_what_the_shape_says() -> None:
    for cache_type, size in ((np.float32, 4), (np.uint16, 2)):
        arrays = CachePool(3, SHAPE, cache_type).slot_arrays(1).values()
        assert sum(array.nbytes for array in arrays) == 2 * 2 * (2 * 6 * 2) * size


def test_no_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="num_slots is 0"):
        Slots(0)
