from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reverie.core import ReverieError
from reverie.engine.snapshot import check_pending, kind_of, pack, unpack

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
DATA = pack("slot", "f00d", ARRAYS, {"frame_index": -3, "name": "x"})


def test_what_goes_in_comes_out() -> None:
    arrays, values = unpack("slot", "f00d", DATA)
    np.testing.assert_array_equal(arrays["a"], ARRAYS["a"])
    assert values == {"frame_index": -3, "name": "x"}


def test_equal_states_are_equal_bytes() -> None:
    assert pack("slot", "f00d", ARRAYS, {"name": "x", "frame_index": -3}) == DATA


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a Reverie session"),
        (b"PNG" * 100, "not a Reverie session"),
        (DATA[:-4], "damaged or cut short"),
        (DATA[:40], "not a Reverie session"),
        (pack("slot", "beef", ARRAYS, {}), "another world"),
        (pack("file", "f00d", ARRAYS, {}), "saved by 'file'; expected 'slot'"),
        (DATA.replace(b'version\\": 2', b'version\\": 7'), "format 7; this Reverie reads 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ReverieError, match=message) as caught:
        unpack("slot", "f00d", data)
    assert "\n" not in str(caught.value)


GOOD = {"latents": np.zeros((4, 2), np.float32), "told": np.zeros(3, np.float32)}
SHAPES = {"latents": (4, 2), "told": (3,)}
VALUES: dict[str, Any] = {"frame_index": 7, "seed": 2**64 - 1}


def test_a_newest_frame_that_can_be_is_taken():
    check_pending(GOOD, VALUES, SHAPES)


@pytest.mark.parametrize(
    ("arrays", "values"),
    [
        ({}, {"frame_index": -(10**6)}),
        ({}, {"frame_index": 10**400}),
        ({}, {"frame_index": True}),
        ({}, {"seed": -1}),
        ({}, {"seed": 1.5}),
        ({}, {"more": 1}),
        ({"told": np.zeros(4, np.float32)}, {}),
        ({"told": np.zeros(3, np.float64)}, {}),
        ({"latents": np.full((4, 2), np.nan, np.float32)}, {}),
    ],
)
def test_a_newest_frame_that_cannot_be_is_refused(arrays: Any, values: Any):
    with pytest.raises(ReverieError, match="a newest frame that cannot be"):
        check_pending(GOOD | arrays, VALUES | values, SHAPES)
    with pytest.raises(ReverieError, match="a newest frame that cannot be"):
        check_pending({"told": GOOD["told"]}, VALUES, SHAPES)


@pytest.mark.parametrize("values", ["[]", "5", "null"])
def test_what_nests_too_deep_or_is_no_object_is_damaged(values: str):
    data = pack("a", "f", {"x": np.zeros(1)}, {})
    flat = data.replace(b'\\"values\\": {}', f'\\"values\\": {values}'.encode())
    size = int.from_bytes(data[:8], "little") + len(flat) - len(data)
    with pytest.raises(ReverieError, match="damaged"):
        unpack("a", "f", size.to_bytes(8, "little") + flat[8:])
    deep = b"[" * 200_000
    with pytest.raises(ReverieError, match="damaged"):
        unpack("a", "f", len(deep).to_bytes(8, "little") + deep)
    assert kind_of(deep) == ""
    assert kind_of(data) == "a"
