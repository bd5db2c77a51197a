"""The report of `evaluate` as one HTML page that needs nothing beside it: figures and what was
wanted, how long play goes, films and contact sheets.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reverie.train.thresholds import Threshold

LABELS = {
    "reconstruction_psnr": "reconstruction, PSNR in dB",
    "next_frame_psnr": "next frame after a true past, PSNR in dB",
    "next_frame_margin": "the same, over repeating the last frame, dB",
    "turns_right": "turns right",
    "turns_left": "turns left",
    "turns_down": "turns down",
    "turns_up": "turns up",
    "turns_obeyed": "turns, worst way",
    "turns_judged": "share of turns that could be judged",
    "turn_angle_ratio": "angle turned over the simulator's",
    "turn_angle_error": "how far that is from one, worst way",
    "walks_forward": "walks forward",
    "walks_back": "walks back",
    "walks_left": "walks left",
    "walks_right": "walks right",
    "jumps": "jumps",
    "keys_obeyed": "walks and jumps, worst key",
    "walks_judged": "share of walks and jumps that could be judged",
    "walk_speed_ratio": "speed of walking over the simulator's",
    "breaks": "breaks what the simulator breaks",
    "breaks_judged": "moments of breaking judged",
    "places": "places what the simulator places",
    "places_judged": "moments of placing judged",
    "prompts_obeyed": "wishes that come true within 2 s, worst attribute",
    "prompts_keep_place": "wishes that leave the place as it is",
    "memory_circle": "once around in 4 s: PSNR of the view over another place's, dB",
    "memory_away": "away and back in 2 s: the same, dB",
    "memory_margin": "memory, the worse of both, dB",
    "flicker_levels": "standing still: change a frame, grey levels",
    "flicker_ratio": "the same over the simulator's, one level being the least",
    "collapsed": "long plays that collapse",
    "detail_ratio_late": "detail at their end, of real frames'",
    "contrast_ratio_late": "contrast at their end, of real frames'",
    "drift_early": "distance to real frames at a hundredth of long play",
    "drift_middle": "the same at a tenth",
    "drift_late": "the same at its end",
    "drift_floor": "what as many real windows stay below",
    "drift_ratio": "drift, end over beginning",
    "first_attempt": "seeds that pass every check of play at once",
    "attempts": "seeds tried",
}
TYPES = {".jpg": "image/jpeg", ".mp4": "video/mp4"}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; }}
body {{ padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; }}
td:nth-child(n+2) {{ font-variant-numeric: tabular-nums; }}
.missed {{ color: #c33; font-weight: 600; }}
.met {{ color: #2a7; }}
figure {{ margin: 2rem 0; }}
img, video, svg {{ width: 100%; height: auto; image-rendering: pixelated; background: #8882; }}
figcaption {{ opacity: .75; }}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<table>
<tr><th>measure</th>{columns}<th>wanted</th><th></th></tr>
{rows}
</table>
{figures}
</html>
"""


def write_page(
    file: Path,
    report: Mapping[str, Any],
    thresholds: Mapping[str, Threshold],
    shown: Sequence[tuple[str, Path]],
    others: Sequence[Mapping[str, Any]] = (),
) -> None:
    """report: as `evaluate` returns it. shown: captions and files, JPEG or MP4, that go into the
    page; a file that is not there is left out. others: reports of the same world at other numbers
    of denoising steps, shown beside.
    """
    judged = [name for name in thresholds if name in report]
    summary = "Every threshold is met."
    if report["missed"]:
        summary = f"Misses {len(report['missed'])} of {len(judged)} thresholds."
    if unknown := [LABELS.get(name, name) for name in thresholds if name not in report]:
        summary += f" Not measured: {', '.join(unknown)}."
    summary += f" Played by the runtime {report['runtime']}."
    wishes = [name for name in report if name.startswith("prompts_") and name not in LABELS]
    labels = {**LABELS, **{name: name.replace("_", " ") for name in wishes}}
    columns = [report, *others]
    heads = [f"<th>steps: {column['denoising_steps']}</th>" for column in columns]
    rows = [
        _row(label, [column.get(name) for column in columns], thresholds.get(name))
        for name, label in labels.items()
        if name in report
    ]
    figures = [_figure(caption, path) for caption, path in shown if path.is_file()]
    if report.get("long_play"):
        figures.insert(0, _plot(report["long_play"]))
    text = PAGE.format(
        title=html.escape(f"{report['world']}, measured"),
        summary=html.escape(summary),
        columns="".join(heads),
        rows="\n".join(rows),
        figures="\n".join(figures),
    )
    file.write_text(text, "utf-8")


def _row(label: str, values: Sequence[float | None], threshold: Threshold | None) -> str:
    cells = "".join(f"<td>{'' if value is None else f'{value:g}'}</td>" for value in values)
    bound, verdict = "", ""
    if threshold is not None and values[0] is not None:
        bound = str(threshold)
        word = "met" if threshold.is_met_by(values[0]) else "missed"
        verdict = f'<span class="{word}">{word}</span>'
    return f"<tr><td>{label}</td>{cells}<td>{bound}</td><td>{verdict}</td></tr>"


def _figure(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    source = f'src="data:{TYPES[path.suffix]};base64,{data}"'
    picture = f'<img alt="{html.escape(caption)}" {source}>'
    if path.suffix == ".mp4":
        picture = f"<video controls loop muted {source}></video>"
    return f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _plot(windows: Sequence[Mapping[str, float]]) -> str:
    """Detail, contrast and variety of each window of long play, as shares of real frames'."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "reverie"  # or every page would be another one
    figure, axis = plt.subplots(figsize=(8, 3))
    seconds = [window["second"] for window in windows]
    for name in ("detail", "contrast", "variety"):
        axis.plot(seconds, [window[name] for window in windows], label=name)
    axis.axhline(1, color="grey", linewidth=0.5)
    axis.set(xlabel="second of play", ylabel="share of real frames'", ylim=(0, None))
    axis.legend()
    figure.tight_layout()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = drawn.getvalue()
    caption = "Does long play stay like real play? Mean over the sessions."
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{caption}</figcaption></figure>"
