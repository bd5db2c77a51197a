"""What installing Reverie to play brings: megabytes by package, time to import, time to say --help.

    python benchmarks/install_size.py [EXTRAS]      e.g. simulator or train; default none

Builds the wheel and installs it into a fresh virtual environment in a temporary folder, so it
needs the package index. Sizes are of the installed files without bytecode: what pip unpacks.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MB = 250.0
NUM_SHOWN = 12
NUM_TIMED = 9


def main() -> int:
    extras = f"[{sys.argv[1]}]" if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory() as folder:
        started_s = time.monotonic()
        python = install(Path(folder), extras)
        install_s = time.monotonic() - started_s
        sizes = package_sizes(python)
        import_s = seconds([str(python), "-c", "import reverie"]) - seconds([str(python), "-c", ""])
        help_s = seconds([str(python.with_name("reverie")), "--help"])
    total = sum(sizes.values())
    print(f"reverie-worlds{extras} on Python {platform.python_version()}, {platform.machine()}")
    for name, megabytes in sorted(sizes.items(), key=lambda item: -item[1])[:NUM_SHOWN]:
        print(f"  {megabytes:7.1f} MB  {name}")
    print(f"  {total:7.1f} MB  in all, {len(sizes)} packages; limit for playing {LIMIT_MB:.0f} MB")
    print(
        f"install {install_s:.1f} s, import reverie {import_s:.3f} s, reverie --help {help_s:.3f} s"
    )
    figures = {
        "benchmark": "install_size",
        "extras": extras.strip("[]"),
        "total_mb": round(total, 1),
        "num_packages": len(sizes),
        "install_s": round(install_s, 1),
        "import_s": round(import_s, 4),
        "help_s": round(help_s, 4),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(figures))
    return 0 if extras or total <= LIMIT_MB else 1


def install(folder: Path, extras: str) -> Path:
    """Builds the wheel as a release would, and installs it; the new environment's Python."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT))
    wheel = next(folder.glob("*.whl"))
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "-q", f"{wheel}{extras}")
    return python


def package_sizes(python: Path) -> dict[str, float]:
    """Megabytes of every installed package, by name."""
    script = """
import json
from importlib.metadata import distributions
def size(file):
    path = file.locate()
    return path.stat().st_size if path.is_file() and path.suffix != ".pyc" else 0
print(json.dumps({d.name: sum(map(size, d.files or ())) / 1e6 for d in distributions()}))
"""
    result = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def seconds(command: list[str]) -> float:
    """Median time of running the command, seconds."""
    times = []
    for _ in range(NUM_TIMED + 1):
        started_s = time.monotonic()
        run(*command, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - started_s)
    return statistics.median(times[1:])  # the first writes bytecode


def run(*command: str, stdout: int | None = None) -> None:
    subprocess.run(command, check=True, stdout=stdout)


if __name__ == "__main__":
    sys.exit(main())
