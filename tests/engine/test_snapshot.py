from __future__ import annotations

import numpy as np
import pytest

from reverie.core import ReverieError
from reverie.engine.snapshot import pack, unpack

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
