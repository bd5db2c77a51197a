#!/usr/bin/env bash
# Every figure of the engine that wants a GPU, into one Markdown document: the bundled world, the Oasis-500M shapes with random weights, and
# a profile of what the host waits for. Not yet run on a GPU.
#
#     runs/bench_cuda.sh OUT
#     SMALL=--small PUBLISHED= SESSIONS=1,2 OASIS_SESSIONS=1 runs/bench_cuda.sh OUT      the rehearsal, without a GPU
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: runs/bench_cuda.sh OUT}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
document=$out/benchmarks.md
rm -f "$document" "$out/figures.jsonl"  # begun anew
bench() { "$python" -m reverie bench "$@" --append "$document" | tail -n 1 >> "$out/figures.jsonl"; }

if [ ! -d "$out/oasis" ]; then
    rm -rf "$out/oasis.partial"
    "$python" benchmarks/random_oasis.py "$out/oasis.partial" ${SMALL:-}
    mv "$out/oasis.partial" "$out/oasis"
fi
bench step --world meadow --runtime torch
bench sessions --world meadow --runtime torch --sessions "${SESSIONS:-1,8,32,64,128,200,256}" --price "${PRICE:-2}"
bench offline --world meadow --runtime torch --price "${PRICE:-2}"
bench oasis ${PUBLISHED---published}
bench step --world "$out/oasis"
bench sessions --world "$out/oasis" --sessions "${OASIS_SESSIONS:-1,4,8,16,24,32}" --price "${PRICE:-2}"
cat "$document"
# Last: they fail where the host waits inside a step, and no figure must be lost by that.
waits=0
"$python" benchmarks/profile_step.py --world meadow --sessions 8 --trace "$out/trace.json" > "$out/profile.txt" || waits=1
"$python" benchmarks/profile_step.py --world "$out/oasis" --sessions 4 > "$out/profile_oasis.txt" || waits=1
exit "$waits"
