#!/bin/bash
# Runs run.py on a SLURM cluster, and requeues it from its last checkpoint until it is done:
#   sbatch jobs/slurm.sh --config=configs/mnist.py --workdir=runs/mnist
#   sbatch --nodes=1 --array=0-8 jobs/slurm.sh --config=configs/mnist5k.py    # a sweep, one point a job
# Submit it from the repository's folder. That folder and the workdir must be on a disk that all nodes share.

#SBATCH --job-name=lcgen
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120

# One process per GPU. Each takes the GPU of its local number and must see all of them: they are requested per node.
# Without "B:" the signal goes to run.py, not to this script. It leaves more time than run.py needs (train.grace_s).

stopped=75 # run.py's exit code if the same command goes on
PATH="$PWD/.venv/bin:$PATH"

code=0
point=${SLURM_ARRAY_TASK_ID:+--sweep_index=$SLURM_ARRAY_TASK_ID} # empty outside of arrays
srun python run.py --multihost $point "$@" || code=$?
if [ "$code" -eq "$stopped" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
