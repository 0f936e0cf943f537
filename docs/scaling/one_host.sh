#!/bin/bash
# bash docs/scaling/one_host.sh 2 --network cbam --batch-size 64 ...
# Several processes on one host, each with an equal share of its cores, and with one GPU where there are any. One process
# uses all GPUs of a host by itself.
set -euo pipefail

number="$1"
shift
cores=$(($(nproc) / number))
processes=()
# A script starts processes in the background such that they ignore Ctrl-C; they stop, with a checkpoint, at SIGTERM.
trap 'kill "${processes[@]}" || true' INT TERM
for ((id = 0; id < number; id++)); do
  if nvidia-smi --list-gpus &>/dev/null; then
    export CUDA_VISIBLE_DEVICES="$id"
  fi
  taskset --cpu-list "$((id * cores))-$(((id + 1) * cores - 1))" \
    python -m train --coordinator "localhost:${PORT:-12345}" --num-processes "$number" --process-id "$id" "$@" &
  processes+=("$!")
done

failed=0
for process in "${processes[@]}"; do
  while kill -0 "$process" 2>/dev/null; do
    wait "$process" || true # which a signal ends, too
  done
  wait "$process" || failed=$?
done
exit "$failed"
