#!/bin/bash
# A Ray cluster inside a Slurm allocation, and one study on it: sbatch studies/cluster/slurm.sh STUDY.yaml
#
# The first machine of the allocation is the head and drives; every machine, the first too, lends its card and its CPUs.
# DATA and RUNS are folders that all machines see. Where the allocation ends before the study, submit again: it goes on.
# Needs an environment with: pip install "ray[default]==2.60.0" "voxnas[cluster,postgresql]"
#SBATCH --job-name=voxnas
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

STUDY=${1:?sbatch slurm.sh STUDY.yaml}
DATA=${DATA:-$PWD/data}
RUNS=${RUNS:-$PWD/runs}

# Token authentication: one token for this allocation, readable by you alone.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$HOME/.ray/token-$SLURM_JOB_ID
(umask 077 && mkdir -p "$HOME/.ray" && head -c 32 /dev/urandom | base64 > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))
LENT=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus 1 --block)

srun --nodes=1 --ntasks=1 --nodelist="$HEAD" \
  ray start --head --node-ip-address="$HEAD" --port="$PORT" --include-dashboard=false "${LENT[@]}" &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$HEAD" \
    ray start --address="$HEAD:$PORT" "${LENT[@]}" &
fi

# The driver; on the signal before the time is up it stops its trials in order.
voxnas run "$STUDY" --executor ray --address "$HEAD:$PORT" --data "$DATA" --runs "$RUNS" &
DRIVER=$!
trap 'kill -TERM $DRIVER' TERM
wait $DRIVER || wait $DRIVER
