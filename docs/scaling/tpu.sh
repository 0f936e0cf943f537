#!/bin/bash
# bash docs/scaling/tpu.sh NAME ZONE --network cbam --batch-size 1024 ...
# Runs the same command on all hosts of a Cloud TPU slice, each of which has this checkout in ~/flax_attn, installed with
# .[train,tpu]. The run folder has to be one that all hosts see, such as a bucket that Cloud Storage FUSE mounts.
set -euo pipefail

name="$1" zone="$2"
shift 2
# Each host asks the metadata server for all of them, as HOST or NAME:NUMBER:ADDRESS, and for its own number.
script="$(
  cat <<'END'
get() { curl -sSf -H "Metadata-Flavor: Google" "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"; }
id="$(get agent-worker-number)"
endpoints="$(get worker-network-endpoints)"
IFS=, read -ra hosts <<<"$endpoints"
cd ~/flax_attn
exec .venv/bin/python -m train --coordinator "${hosts[0]##*:}:8476" --num-processes "${#hosts[@]}" --process-id "$id" "$@"
END
)"
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all \
  --command "$(printf '%q ' bash -euc "$script" train --run-dir "${RUN_DIR:?a folder that all hosts see}" "$@")"
