#!/bin/bash
# bash docs/scaling/tpu.sh NAME ZONE --network cbam --batch-size 1024 ...
# Runs the same command on all hosts of a Cloud TPU slice, each of which has this checkout in ~/flax_attn, installed with
# .[train,tpu]. The run folder has to be one that all hosts see, such as a bucket that Cloud Storage FUSE mounts.
set -euo pipefail

name="$1" zone="$2"
shift 2
words="$(printf '%q ' --run-dir "${RUN_DIR:?a folder that all hosts see}" "$@")"
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all \
  --command "cd ~/flax_attn && .venv/bin/python -m train $words"
