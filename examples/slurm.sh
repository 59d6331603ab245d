#!/bin/bash
#SBATCH --job-name=layeralign
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=08:00:00
# Start Ray on every node of this job, and scan with one worker per GPU. MODEL, CASES and OUT are on a shared disk.
#   MODEL=/shared/model CASES=/shared/cases.jsonl OUT=/shared/run sbatch slurm.sh
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$(getent hosts "$head" | awk '{print $1; exit}'):6379"
cpus=$SLURM_CPUS_PER_TASK

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="${address%:*}" --port=6379 --num-cpus="$cpus" --block &
until srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" ray status --address="$address" >/dev/null 2>&1; do
  sleep 5
done
srun --overlap --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$head" \
  ray start --address="$address" --num-cpus="$cpus" --block &

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  layeralign scan --model "$MODEL" --cases "$CASES" --out "$OUT" --dtype bfloat16 --ray "$address" \
  --workers "$((8 * SLURM_JOB_NUM_NODES))" --gpus-per-worker 1
