"""`reverie bench`: what it says is what was measured, and its ratios are of one run."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from reverie import world as worlds
from reverie.bench import measure, oasis, offline, sessions, step
from reverie.bench.measure import EnergyMeter, percentile, times_ms
from reverie.bench.report import Report, append_report
from reverie.cli import main
from reverie.model.adapters.oasis_networks import OasisShape
from reverie.train.export import write_random_world


@pytest.fixture(scope="module")
def world_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_world(tmp_path_factory.mktemp("world")).path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (step, offline):
        monkeypatch.setattr(module, "NUM_TIMED", 5)
    monkeypatch.setattr(sessions, "TICKS", 5)
    monkeypatch.setattr(offline, "OFFLINE_STEPS", 3)
    monkeypatch.setattr(offline, "CLIP_S", 0.5)
    monkeypatch.setattr(offline, "NUM_CLIPS", 1)
    monkeypatch.setattr(oasis, "NUM_ROUNDS", 1)
    monkeypatch.setattr(oasis, "SMALL", OasisShape((4, 6), width=64, depth=1))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    assert main(["bench", *arguments]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_frame_is_its_stages(
    world_path: Path, capsys: pytest.CaptureFixture[str], runtime: str
) -> None:
    figures = run(capsys, "step", "--world", str(world_path), "--runtime", runtime)
    stages = ("denoise", "commit", "decode", "encode")
    assert all(figures[f"{stage}_ms"] > 0 for stage in stages)
    assert figures["whole_frame_ms"] > 0
    # What remembering costs is one pass, without the layers after the last keys at most.
    assert 0 < figures["commit_gflop"] <= figures["denoise_gflop"]
    gflop = sum(figures[f"{part}_gflop"] for part in ("denoise", "commit", "decode"))
    assert figures["floor_ms"] == pytest.approx(gflop / figures["gflops"] * 1000, abs=0.01)


def test_the_curve_over_sessions(world_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(
        capsys, "sessions", "--world", str(world_path), "--sessions", "1,3", "--price", "3"
    )
    one, three = figures["curve"]  # pyright: ignore[reportGeneralTypeIssues]
    assert (one["sessions"], three["sessions"]) == (1, 3)
    assert three["gap_p50_ms"] <= three["gap_p95_ms"] <= three["gap_p99_ms"]
    for point in (one, three):
        in_time = point["gap_p99_ms"] <= 50
        expected = round(3 / point["sessions"], 4) if in_time else None
        assert point["dollars_per_session_hour"] == expected
    assert figures["most_sessions_in_time"] in {0, 1, 3}
    assert figures["mb_per_session"] > 0


def test_without_pytorch_the_curve_has_no_floor(
    world_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "find_spec", lambda name: None)
    figures = run(capsys, "sessions", "--world", str(world_path), "--sessions", "1")
    (one,) = figures["curve"]  # pyright: ignore[reportGeneralTypeIssues]
    assert figures["floor_ms"] is None
    assert one["over_floor"] is None
    assert one["fps_each"] > 0


def test_an_offline_clip_costs_more_and_answers_once(
    world_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = run(capsys, "offline", "--world", str(world_path))
    assert figures["clip_frames"] == 10
    ratio = figures["ratio_per_answering_frame"] / figures["ratio_per_clip_frame"]
    assert ratio == pytest.approx(10, rel=0.1)


def test_a_cache_against_the_window(capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(capsys, "oasis")
    for way in ("ring", "exact_window"):
        ratio = figures["recomputed_ms"] / figures[f"{way}_ms"]
        assert figures[f"{way}_ratio"] == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["everything"], "no benchmark 'everything'; expected one of step, sessions"),
        (["sessions", "--sessions", "1,x"], "sessions '1,x'; expected whole numbers from 1"),
        (["oasis", "--append", "/nowhere/file.md"], "cannot write /nowhere/file.md"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    assert line in capsys.readouterr().err


def test_a_report_is_a_section_of_a_document(tmp_path: Path) -> None:
    report = Report("reverie bench tea", ("cup", "ms"), [("first", "1.0")], {}, ("It was hot.",))
    document = tmp_path / "benchmarks.md"
    document.write_text("# Benchmarks\n")
    append_report(report, document)
    append_report(report, document)
    text = document.read_text()
    assert text.startswith("# Benchmarks\n\n## `reverie bench tea`\n")
    assert text.count("| cup | ms |\n|---|---|\n| first | 1.0 |\n\nIt was hot.\n") == 2


def test_times_and_percentiles() -> None:
    calls = []
    times = times_ms(lambda: (calls.append(0), time.sleep(0.01)), 3, warm_up=2)
    assert (len(calls), len(times)) == (5, 3)
    assert min(times) >= 10
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0], 0.99) == 2.0
    assert percentile([float(i) for i in range(1, 101)], 0.99) == 99.0


def test_a_world_without_starts_is_measured_from_black(
    world_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(world_path, bare)
    shutil.rmtree(bare / "starts")
    assert run(capsys, "step", "--world", str(bare))["denoise_ms"] > 0


def test_flops_grow_with_the_steps(world_path: Path) -> None:
    counted = step.count_gflops(worlds.load(world_path), 1)
    twice = step.count_gflops(worlds.load(world_path), 2)
    assert twice["denoise"] == pytest.approx(2 * counted["denoise"])
    assert twice["decode"] == counted["decode"]


def test_energy_is_read_where_the_machine_has_a_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "RAPL", tmp_path)
    meter = EnergyMeter()
    assert (meter.source, meter.joules()) == ("", None)
    zones = [
        ("0", "package-0", 2_500_000),
        ("1", "package-1", 500_000),
        ("0:0", "core", 9),
        ("2", "psys", 9),
    ]
    for zone, name, microjoules in zones:
        (tmp_path / f"intel-rapl:{zone}").mkdir()
        (tmp_path / f"intel-rapl:{zone}" / "name").write_text(f"{name}\n")
        (tmp_path / f"intel-rapl:{zone}" / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / f"intel-rapl:{zone}" / "max_energy_range_uj").write_text("262143328850\n")
    meter = EnergyMeter()
    assert meter.source == "RAPL"
    assert meter.joules() == 3.0
    assert EnergyMeter("cuda").source == ""
