#!/bin/bash
# sbatch docs/scaling/slurm.sh --network cbam --batch-size 512 ...
#SBATCH --job-name=flax_attn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4      # one process for each GPU
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8        # which decode images
#SBATCH --time=02:00:00
#SBATCH --signal=USR1@120        # two minutes before the end: save a checkpoint and leave
#SBATCH --requeue
set -euo pipefail

# The folder has to be one that all nodes see. A job that was requeued goes on where it stopped.
run="${RUN_DIR:-runs/$SLURM_JOB_ID}"
words=(--run-dir "$run" "$@")
if [[ -f "$run/config.json" ]]; then
  words=(--resume "$run")
fi
status=0
srun python -m train "${words[@]}" || status=$?
if [[ "$status" == 138 ]]; then # stopped by SIGUSR1; --requeue alone is for nodes that fail
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
