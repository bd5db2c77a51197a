#!/usr/bin/env bash
# From nothing to a world: record, train the autoencoder, train the denoiser, distill it, polish the decoder, export, evaluate.
#
#     runs/meadow.sh OUT          called by meadow_cpu.sh and meadow_cuda.sh, which set the numbers
#
# Every stage goes on from its checkpoint: start the script again after a cut and nothing is lost.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: runs/meadow.sh OUT}
[ -n "${REVERIE:-}" ] || make dev
reverie=${REVERIE:-.venv/bin/reverie}
data=$out/data
trainer=($reverie)
if [ "${PROCESSES:-1}" -gt 1 ]; then # each takes its share of every batch
    trainer=("$(dirname "$(command -v "$reverie")")/torchrun" --standalone --nproc-per-node "$PROCESSES" -m reverie)
fi
# glibc gives large buffers back to the kernel at every step: up to a third of the time goes to page faults.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592

$reverie record reverie/Meadow-v0 --out "$data" --picture "$PICTURE" --length "${LENGTH:-600}" \
    --env-kwarg prompts=true --episodes "$EPISODES" --validation "${HELD_OUT:-20}" --test "${HELD_OUT:-20}"
"${trainer[@]}" train autoencoder --data "$data" --out "$out" --size "$SIZE" --frames "$FRAMES" --threads "${THREADS:-0}" \
    --steps "$AUTOENCODER_STEPS" --batch-size "$AUTOENCODER_BATCH" --learning-rate "${AUTOENCODER_RATE:-1.5e-3}"
"${trainer[@]}" train denoiser --data "$data" --out "$out" --size "$SIZE" --frames "$FRAMES" --threads "${THREADS:-0}" \
    --steps "$DENOISER_STEPS" --batch-size "$DENOISER_BATCH" --learning-rate "${DENOISER_RATE:-2e-3}" ${COMPILE:-}
"${trainer[@]}" distill --data "$data" --out "$out" --frames "$FRAMES" --threads "${THREADS:-0}" \
    --steps "$DISTILL_STEPS" --batch-size "$DENOISER_BATCH" --learning-rate "${DISTILL_RATE:-5e-4}" ${COMPILE:-}
"${trainer[@]}" train decoder --data "$data" --out "$out" --frames "$FRAMES" --threads "${THREADS:-0}" \
    --steps "$DECODER_STEPS" --batch-size "$AUTOENCODER_BATCH" --learning-rate "${DECODER_RATE:-1e-3}"
if [ "${REFINER_STEPS:-0}" -gt 0 ]; then # calmer, sharper pictures that walk too slowly yet (docs/log.md): not by default
    "${trainer[@]}" train refiner --data "$data" --out "$out" --frames "$FRAMES" --threads "${THREADS:-0}" \
        --steps "$REFINER_STEPS" --batch-size "${REFINER_BATCH:-8}" --learning-rate "${REFINER_RATE:-2e-3}"
fi
$reverie export "$out" "$out/world" --data "$data" --name meadow ${STARTS:+--starts "$STARTS"}
# A world that misses a threshold (exit code 3) is still a world; the report says what it misses.
$reverie evaluate "$out/world" --data "$data" --out "$out/report" ${EVALUATE:-} || [ $? -eq 3 ]
