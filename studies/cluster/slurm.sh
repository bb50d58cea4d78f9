#!/bin/bash
# Start a Ray cluster inside a Slurm allocation and run one study on it: sbatch studies/cluster/slurm.sh STUDY.yaml
#
# The first machine of the allocation is the head and runs the driver; all machines, including the first, run trials on
# their GPU and CPUs. DATA and RUNS are folders that all machines mount. If the allocation ends before the study does,
# submit the script again to resume. Requires: pip install "ray[default]==2.60.0" "voxnas[cluster,postgresql]"
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

# Token authentication: one token per allocation, readable only by you.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$HOME/.ray/token-$SLURM_JOB_ID
(umask 077 && mkdir -p "$HOME/.ray" && head -c 32 /dev/urandom | base64 > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))
RESOURCES=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus 1 --block)

srun --nodes=1 --ntasks=1 --nodelist="$HEAD" \
  ray start --head --node-ip-address="$HEAD" --port="$PORT" --include-dashboard=false "${RESOURCES[@]}" &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$HEAD" \
    ray start --address="$HEAD:$PORT" "${RESOURCES[@]}" &
fi

# The driver. Slurm signals it before the time limit; it then stops its trials cleanly.
voxnas run "$STUDY" --executor ray --address "$HEAD:$PORT" --data "$DATA" --runs "$RUNS" &
DRIVER=$!
trap 'kill -TERM $DRIVER' TERM
wait $DRIVER || wait $DRIVER
