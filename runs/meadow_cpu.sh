#!/usr/bin/env bash
# The small Meadow (160x96) on two CPU cores, in the background, in hours: two processes of one thread, which train
# faster than one of two. PROCESSES=1 leaves a core free.
#
#     nohup runs/meadow_cpu.sh &          again after a cut: it goes on
export PICTURE=${PICTURE:-160x96} SIZE=${SIZE:-small} PROCESSES=${PROCESSES:-2} THREADS=${THREADS:-1}
export EPISODES=${EPISODES:-400} FRAMES=${FRAMES:-120000} STARTS=${STARTS-runs/starts.json}
export AUTOENCODER_STEPS=${AUTOENCODER_STEPS:-2500} AUTOENCODER_BATCH=${AUTOENCODER_BATCH:-32}
export DENOISER_STEPS=${DENOISER_STEPS:-5000} DENOISER_BATCH=${DENOISER_BATCH:-8}
export DISTILL_STEPS=${DISTILL_STEPS:-450} DECODER_STEPS=${DECODER_STEPS:-2400}
exec "$(dirname "$0")/meadow.sh" "${1:-runs/out/meadow_cpu}"
