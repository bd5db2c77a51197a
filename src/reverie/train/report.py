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

LABELS = {
    "reconstruction_psnr": "reconstruction, PSNR in dB",
    "next_frame_psnr": "next frame after a true past, PSNR in dB",
    "next_frame_margin": "the same, over repeating the last frame, dB",
    "turns_right": "turns right",
    "turns_left": "turns left",
    "turns_down": "turns down",
    "turns_up": "turns up",
    "turns_obeyed": "turns, worst way",
    "turns_judged": "moments at which turns could be judged",
    "turn_angle_ratio": "angle turned over the simulator's",
    "walks_forward": "walks forward",
    "walks_back": "walks back",
    "walks_left": "walks left",
    "walks_right": "walks right",
    "walk_speed_ratio": "speed of walking over the simulator's",
    "walks_judged": "moments at which walking could be judged",
    "collapsed": "long play that collapses",
    "detail_ratio_late": "detail at its end, of real frames'",
    "contrast_ratio_late": "contrast at its end, of real frames'",
    "variety_late": "variety at its end, grey levels",
    "variety_real": "variety of real frames, grey levels",
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
<tr><th>measure</th><th>measured</th><th>wanted</th><th></th></tr>
{rows}
</table>
{figures}
</html>
"""


def write_page(
    file: Path,
    report: Mapping[str, Any],
    thresholds: Mapping[str, float],
    shown: Sequence[tuple[str, Path]],
) -> None:
    """report: as `evaluate` returns it. shown: captions and files, JPEG or MP4, that go into the
    page; a file that is not there is left out.
    """
    missed = report["missed"]
    summary = "Every threshold is met."
    if missed:
        summary = f"Misses {len(missed)} of {len(thresholds)} thresholds."
    title = f"{report['world']}, {report['denoising_steps']} denoising steps a frame"
    if report["denoising_steps"] == 1:
        title = f"{report['world']}, one denoising step a frame"
    rows = [
        _row(label, report[name], thresholds.get(name), name in missed, name == "collapsed")
        for name, label in LABELS.items()
        if name in report
    ]
    figures = [_figure(caption, path) for caption, path in shown if path.is_file()]
    if report.get("long_play"):
        figures.insert(0, _plot(report["long_play"]))
    text = PAGE.format(
        title=html.escape(title), summary=summary, rows="\n".join(rows), figures="\n".join(figures)
    )
    file.write_text(text, "utf-8")


def _row(label: str, value: float, wanted: float | None, missed: bool, at_most: bool) -> str:
    bound, verdict = "", ""
    if wanted is not None:
        bound = f"{'at most' if at_most else 'at least'} {wanted:g}"
        verdict = '<span class="missed">missed</span>' if missed else '<span class="met">met</span>'
    return f"<tr><td>{label}</td><td>{value:g}</td><td>{bound}</td><td>{verdict}</td></tr>"


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
