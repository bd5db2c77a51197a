"""The command line: one thin verb for each thing Reverie does.

Everything heavy is imported inside the verb that needs it, so that `reverie --help` is instant.
What a person gets wrong is one line on standard error and exit code 2; Ctrl-C is quiet and exits
with 130. A traceback is a bug.
"""

from __future__ import annotations

import errno
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reverie.bench.command import RuntimeName, bench
from reverie.core import ReverieError
from reverie.server.command import Port, key, serve

if TYPE_CHECKING:
    from reverie.engine import Engine
    from reverie.train import run as training

INTERRUPTED = 130
USER_ERROR = 2
MISSED = 3
"""A world was measured and misses a threshold."""
EXTRAS = {
    "av": "video",
    "cv2": "train",
    "gymnasium": "simulator",
    "huggingface_hub": "hub",
    "jaxtyping": "train",
    "matplotlib": "train",
    "numba": "simulator",
    "onnx": "train",
    "onnxscript": "train",
    "torch": "train",
}
"""Optional package -> the extra that brings it."""

app = typer.Typer(
    help="Play, train and serve neural worlds: every frame is generated from what the player did.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command (default: the process's own arguments) and returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(arguments, prog_name="reverie", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        line = _one_line(error, arguments)
        if line is None or "--traceback" in arguments:
            raise
        print(f"reverie: {line}", file=sys.stderr)
        return USER_ERROR
    return code if isinstance(code, int) else 0


def _one_line(error: Exception, arguments: Sequence[str]) -> str | None:
    """What the person at the keyboard should read; None when the error is a bug of ours."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            return None
        extra = f"reverie-worlds[{EXTRAS[package]}]"
        return f"this needs {package}, which is not installed: pip install '{extra}'"
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    # Usage errors are typer's own or click's, depending on typer's version; both format themselves.
    format_message = getattr(error, "format_message", None)
    if format_message is None:
        return None
    flags = getattr(getattr(error, "param", None), "opts", ())
    given = [value for flag, value in itertools.pairwise(arguments) if flag in flags]
    line = " ".join(format_message().split()).rstrip(".")
    return f"{line}{f', not {given[-1]!r}' if given else ''} (see --help)"


def _system_error(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop what uses it or choose another with --port"
    what = (error.strerror or str(error)).lower()
    return f"{error.filename}: {what}" if error.filename else what


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"reverie {metadata.version('reverie-worlds')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error arose, for a bug report.")
    ] = False,
) -> None:
    pass


WorldName = Annotated[
    str, typer.Argument(metavar="WORLD", help="A bundled name, a folder, or hf://user/world.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")]


@app.command()
def play(
    world: WorldName = "meadow",
    simulator: Annotated[
        bool, typer.Option("--simulator", help="Play what Meadow was learned from, to compare.")
    ] = False,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    host: Host = "127.0.0.1",
    port: Port = None,
    open_access: Annotated[
        bool, typer.Option("--open", help="Let anybody play who can reach the address.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps per frame to begin with.", min=1)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the session; drawn if not given.", min=0)
    ] = None,
) -> None:
    """Play a world in the browser.

    Ctrl-C ends it.
    """
    from urllib.parse import urlencode

    from reverie.server import serve
    from reverie.server.serving import is_loopback

    if not (open_access or is_loopback(host)):
        raise ReverieError(f"host {host} can be reached by others: give --open to let anybody play")
    load = _simulator_loader(seed or 0) if simulator else _loader(world, steps, num_slots=4)
    wishes = {
        name: value for name, value in (("steps", steps), ("seed", seed)) if value is not None
    }
    query = f"/?{urlencode(wishes)}" if wishes else ""
    serve(load, host=host, port=port, announce=lambda address: _open(address + query, browser))


app.command()(serve)
app.command()(key)


@app.command()
def generate(
    actions: Annotated[Path, typer.Argument(metavar="ACTIONS", help="Action script, a JSON list.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The film to write, an .mp4 file.")],
    world: Annotated[
        str, typer.Option(help="A bundled name, a folder, or hf://user/world.")
    ] = "meadow",
    start: Annotated[
        str | None, typer.Option(help="Name of the start; the first one if not given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps per frame; the fewest if not given.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides all chance.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a film of what a world makes of a script of actions.

    The script is a JSON list; an entry is held for its number of frames:
    [{"keys": ["w"], "frames": 40}, {"keys": ["w", "space"], "mouse": [5, 0], "frames": 20}].
    Keys are the world's or those of a keyboard, mouse is degrees per frame to the right and down.
    """
    from reverie.client import load
    from reverie.generate import generate, read_script

    found = load(world)
    script = read_script(actions, found)
    film = generate(
        found, script, out, seed=seed, start=start, steps=steps, show_progress=not as_json
    )
    seconds = len(script) / found.config.fps
    summary = {"path": str(film), "frames": len(script), "seconds": seconds}
    _report(summary, f"{film}: {len(script)} frames, {seconds:.1f} s", as_json)


@app.command()
def worlds(as_json: AsJson = False) -> None:
    """List the worlds that came with Reverie."""
    from reverie import world

    configs = [world.read_config(world.find(name)) for name in world.bundled()]
    if as_json:
        print(json.dumps([config.to_json() for config in configs]))
        return
    for config in configs:
        steps = ", ".join(map(str, config.denoising_steps))
        size = f"{config.width} x {config.height}, {config.fps} frames/s"
        print(
            f"{config.name:<16} {size}, {steps} denoising steps, remembers {config.context} frames"
        )
    if not configs:
        print("no worlds came with this installation", file=sys.stderr)


EnvSettings = Annotated[
    list[str] | None, typer.Option(help="For the environment: NAME=VALUE, VALUE in JSON.")
]


def _describe_actions(
    environment: str, path: Path, settings: dict[str, Any], overwrite: bool, as_json: bool
) -> None:
    from reverie.data.record import write_actions

    keys = write_actions(environment, path, settings, overwrite)
    line = f"{path}: {len(keys)} keys; edit it, then record with --actions {path} --out DATA"
    _report({"path": str(path), "keys": list(keys)}, line, as_json)


@app.command()
def record(
    environment: Annotated[
        str, typer.Argument(metavar="ENV", help="Gymnasium id, or module:function that makes one.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Write a file of the environment's actions, to be edited.")
    ] = None,
    actions: Annotated[Path | None, typer.Option(help="Such a file: what keys do.")] = None,
    episodes: Annotated[int, typer.Option(help="Episodes to train on.", min=0)] = 400,
    validation: Annotated[int, typer.Option(help="Episodes to watch training by.", min=0)] = 20,
    test: Annotated[int, typer.Option(help="Episodes to evaluate on.", min=0)] = 20,
    length: Annotated[int, typer.Option(help="Actions in an episode, at most.", min=1)] = 600,
    policy: Annotated[str, typer.Option(help="Who plays; auto fits the environment.")] = "auto",
    env_kwarg: EnvSettings = None,
    seed: Annotated[int, typer.Option(help="Decides every episode's seed.", min=0)] = 0,
    processes: Annotated[
        int | None, typer.Option(help="How many play at once; one per core if not given.", min=1)
    ] = None,
    picture: Annotated[
        str | None, typer.Option(help="Size to draw at, such as 160x96; else the environment's.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Forget what the folder holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Record an environment: seeds and actions, a few bytes a frame.

    Ctrl-C keeps what is finished, and the same command goes on from there.
    """
    from reverie.data.environment import parse_setting, parse_size
    from reverie.data.record import record

    settings = dict(map(parse_setting, env_kwarg or []))
    if init is not None:
        return _describe_actions(environment, init, settings, overwrite, as_json)
    if out is None:
        raise ReverieError("give --out, the folder of the data set, or --init for its actions")
    dataset = record(
        environment,
        out,
        actions=actions,
        episodes=episodes,
        validation=validation,
        test=test,
        episode_actions=length,
        policy=policy,
        env_kwargs=settings,
        seed=seed,
        processes=processes,
        size=parse_size(picture) if picture else None,
        overwrite=overwrite,
        progress=not as_json,
    )
    num_frames = sum(episode.num_actions + 1 for episode in dataset.episodes)
    summary = {"path": str(out), "episodes": len(dataset.episodes), "frames": num_frames}
    _report(summary, f"{out}: {len(dataset.episodes)} episodes, {num_frames} frames", as_json)


Data = Annotated[Path, typer.Option(help="Folder of the data set.")]
Run = Annotated[Path, typer.Option(help="Folder of the run; every stage has its own in it.")]
Steps = Annotated[int, typer.Option(help="Training steps of the whole stage.", min=1)]
BatchSize = Annotated[int, typer.Option(help="Frames or segments in a step.", min=1)]
LearningRate = Annotated[float, typer.Option(help="The highest of the schedule.")]
NumFrames = Annotated[
    int | None, typer.Option(help="Training frames to render; all if not given.", min=1)
]
SaveEvery = Annotated[float, typer.Option(help="Seconds between checkpoints.", min=1)]
Compiled = Annotated[
    bool, typer.Option("--compile/--no-compile", help="Compile the denoiser's layers.")
]
Threads = Annotated[int, typer.Option(help="CPU threads; 0 for all.", min=0)]
TrainingSeed = Annotated[int, typer.Option(help="Of weights, noise and order.", min=0)]


@app.command()
def train(
    stage: Annotated[
        str,
        typer.Argument(metavar="STAGE", help="autoencoder, denoiser; to polish: decoder, refiner."),
    ],
    data: Data,
    out: Run,
    steps: Steps,
    size: Annotated[str, typer.Option(help="tiny, mini, small (CPU) or large (GPU).")] = "small",
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 1e-3,
    begin_with: Annotated[
        str | None,
        typer.Option(metavar="WORLD", help="Go on from a world's weights, at its size."),
    ] = None,
    frames: NumFrames = None,
    save_every: SaveEvery = 240.0,
    compiled: Compiled = True,
    threads: Threads = 0,
    seed: TrainingSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Train one stage of a world.

    Saves every few minutes; after Ctrl-C or a cut, the same command goes on from there. On several
    GPUs or cores, one process each: torchrun --nproc-per-node N -m reverie train ...
    """
    from reverie import world as worlds
    from reverie.train.recipe import train_stage
    from reverie.train.run import RunConfig

    options = {"save_every_s": save_every, "seed": seed, "threads": threads, "compile": compiled}
    config = RunConfig(steps, batch_size, learning_rate, **options)
    world = worlds.load(begin_with) if begin_with else None
    _report_stage(train_stage(stage, data, out, size, config, frames, world), as_json)


@app.command()
def distill(
    data: Data,
    out: Run,
    steps: Steps,
    guidance: Annotated[float, typer.Option(help="Added, of what the action changes.")] = 1.0,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 5e-4,
    frames: NumFrames = None,
    save_every: SaveEvery = 240.0,
    compiled: Compiled = True,
    threads: Threads = 0,
    seed: TrainingSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Teach a run's denoiser to draw, in the few steps of play, what guidance would draw.

    Stops and goes on as `train` does; `export` takes the distilled network where there is one.
    """
    from reverie.train.distill import GuidanceConfig
    from reverie.train.recipe import distill_stage
    from reverie.train.run import RunConfig

    options = {"save_every_s": save_every, "seed": seed, "threads": threads, "compile": compiled}
    config = RunConfig(steps, batch_size, learning_rate, ema_decay=0.99, **options)
    trained = distill_stage(data, out, config, GuidanceConfig(guidance), frames)
    _report_stage(trained, as_json)


def _report_stage(trained: training.Run, as_json: bool) -> None:
    """Of a stage that is done; a stage that was stopped is an exit code."""
    from reverie.train import parallel

    if trained.step < trained.config.steps:  # whatever comes next must not run on it
        raise typer.Exit(INTERRUPTED)
    folder, steps = trained.folder, trained.step
    if parallel.rank() == 0:
        summary = {"path": str(folder), "stage": folder.name, "steps": steps}
        _report(summary, f"{folder}: trained for {steps} steps", as_json)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the world to write.")],
    data: Data,
    name: Annotated[
        str | None, typer.Option(help="Of the world; its folder's name if not given.")
    ] = None,
    starts: Annotated[
        Path | None, typer.Option(help="JSON list of the moments where play can begin.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Markdown file that becomes the world's card.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a world that plays without PyTorch out of a training run."""
    from reverie.train.recipe import export_run

    text = card.read_text("utf-8") if card else ""
    world = export_run(data, run, path, name or path.resolve().name, starts, text)
    num_bytes = sum(file.stat().st_size for file in world.path.rglob("*") if file.is_file())
    summary = {"path": str(world.path), "starts": len(world.starts), "bytes": num_bytes}
    sentence = f"{world.path}: {len(world.starts)} starts, {num_bytes / 1e6:.1f} MB"
    _report(summary, f"{sentence}; play it with: reverie play {world.path}", as_json)


@app.command()
def evaluate(
    world: WorldName,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the report and its pictures.")],
    steps: Annotated[int, typer.Option(help="Denoising steps per frame.", min=1)] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="In two minutes: is it alive? Not how good it is.")
    ] = False,
    runtime: RuntimeName = None,
    as_json: AsJson = False,
) -> None:
    """Measure a world against episodes it never saw; exit code 3 if it misses a threshold of its
    card. Goes on where it was cut.
    """
    from reverie import world as worlds
    from reverie.train.evaluate import FULL, QUICK
    from reverie.train.evaluate import evaluate as measure

    found = worlds.load(world)
    _expect_steps(found.config.denoising_steps, steps)
    effort = QUICK if quick else FULL
    report = measure(found, data, out, num_steps=steps, runtime=runtime, effort=effort)
    figures = [f"{k:<24} {v}" for k, v in report.items() if not isinstance(v, list)]
    names = [f"{k:<24} {', '.join(report[k]) or 'none'}" for k in ("missed", "not_measured")]
    _report(report, "\n".join(figures + names), as_json)
    if report["missed"]:
        raise typer.Exit(MISSED)


app.command()(bench)


def _loader(name: str, steps: int | None, num_slots: int) -> Callable[[], Engine]:
    """What makes the engine, later and on a thread; a world that is not whole is an error now."""
    from reverie import world

    found = world.load(name)
    if steps is not None:
        _expect_steps(found.config.denoising_steps, steps)

    def load() -> Engine:
        from reverie.engine import load_engine

        return load_engine(found, num_slots=num_slots)

    return load


def _expect_steps(known: Sequence[int], steps: int) -> None:
    if steps not in known:
        raise ReverieError(f"{steps} denoising steps; this world was trained for {list(known)}")


def _simulator_loader(seed: int) -> Callable[[], Engine]:
    from reverie.engine.runtimes.simulator import SimulatorRuntime, require_simulator

    require_simulator()

    def load() -> Engine:
        from reverie.engine import Engine

        runtime = SimulatorRuntime(first_seed=seed, env_kwargs={"prompts": True})
        return Engine(runtime.world, runtime, num_slots=2)

    return load


def _open(address: str, browser: bool) -> None:
    print(f"Playing at {address}  (Ctrl-C ends it)", flush=True)
    if browser:
        import threading
        import webbrowser

        # on a thread: where there is only a text browser, opening waits until it is closed
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _report(summary: dict[str, Any], sentence: str, as_json: bool) -> None:
    print(json.dumps(summary) if as_json else sentence)
