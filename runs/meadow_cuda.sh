#!/usr/bin/env bash
# The large Meadow (320x192) on one GPU and 16 cores. Rehearsed in miniature by tests/test_runs.py; its step counts are set by
# arithmetic for 25 minutes on an H100 and have not been timed on one yet (docs/log.md).
#
#     runs/meadow_cuda.sh                 again after a cut: it goes on
export PICTURE=${PICTURE:-320x192} SIZE=${SIZE:-large} THREADS=${THREADS:-0}
export EPISODES=${EPISODES:-400} FRAMES=${FRAMES:-200000} STARTS=${STARTS-runs/starts.json}
export AUTOENCODER_STEPS=${AUTOENCODER_STEPS:-6000} AUTOENCODER_BATCH=${AUTOENCODER_BATCH:-64}
export DENOISER_STEPS=${DENOISER_STEPS:-11000} DENOISER_BATCH=${DENOISER_BATCH:-64}
export DISTILL_STEPS=${DISTILL_STEPS:-1000} DECODER_STEPS=${DECODER_STEPS:-2000}
exec "$(dirname "$0")/meadow.sh" "${1:-runs/out/meadow_cuda}"
