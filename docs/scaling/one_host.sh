#!/bin/bash
# bash docs/scaling/one_host.sh 2 --network cbam --batch-size 64 ...
# Several processes on one host, here each with an equal share of its cores. One process uses all GPUs of a host by itself.
set -euo pipefail

number="$1"
shift
cores=$(($(nproc) / number))
for ((id = 0; id < number; id++)); do
  taskset --cpu-list "$((id * cores))-$(((id + 1) * cores - 1))" \
    python -m train --coordinator "localhost:${PORT:-12345}" --num-processes "$number" --process-id "$id" "$@" &
done
failed=0
for ((id = 0; id < number; id++)); do
  wait -n || failed=$?
done
exit "$failed"
