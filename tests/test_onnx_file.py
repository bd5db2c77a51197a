from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.core import ReverieError
from reverie.onnx_file import ExternalRange, external_ranges


def test_ranges_are_those_that_onnx_itself_reads(tiny_path: Path) -> None:
    for name in ("encoder", "decoder", "denoiser"):
        file = tiny_path / f"{name}.onnx"
        expected = []
        for tensor in onnx.load(str(file), load_external_data=False).graph.initializer:
            if tensor.external_data:
                place = {entry.key: entry.value for entry in tensor.external_data}
                length, offset = int(place["length"]), int(place["offset"])
                expected.append(ExternalRange(place["location"], offset, length))
        assert expected
        assert external_ranges(file) == expected


@given(st.binary(max_size=200))
def test_rubbish_is_refused_and_never_hangs(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("onnx") / "rubbish.onnx"
    file.write_bytes(data)
    with contextlib.suppress(ReverieError):
        external_ranges(file)


def test_a_graph_that_is_cut_short_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    whole = (tiny_path / "denoiser.onnx").read_bytes()
    file = tmp_path / "denoiser.onnx"
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ReverieError, match="not a whole ONNX graph"):
            external_ranges(file)
