#!/bin/bash
# Runs run.py on a SLURM cluster, and again from where it was stopped until it is done:
#   sbatch jobs/slurm.sh --config=configs/mnist.py --workdir=runs/mnist
#   sbatch --nodes=1 --array=0-8 jobs/slurm.sh --config=configs/mnist5k.py    # a sweep, a point a job
# From the repository's folder; it and the workdir must be on a disk that all nodes share.

#SBATCH --job-name=lcgen
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120

# A process a GPU: each takes the one of its number on the node and must see them all, so they are asked for by node.
# Without "B:" the signal goes to run.py and not to this script, earlier than run.py takes to end (train.grace_s).

stopped=75 # run.py's exit code where the same command goes on
PATH="$PWD/.venv/bin:$PATH"

code=0
point=${SLURM_ARRAY_TASK_ID:+--sweep_index=$SLURM_ARRAY_TASK_ID} # empty outside of arrays
srun python run.py --multihost $point "$@" || code=$?
if [ "$code" -eq "$stopped" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
