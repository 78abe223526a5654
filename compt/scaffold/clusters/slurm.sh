#!/bin/bash
# Train a chain on Slurm, and go on with it after every limit, preemption and lost node.
#
#   sbatch slurm.sh
#
# Change what is marked. The work folder has to be one that all nodes see.

#SBATCH --job-name=compt
#SBATCH --nodes=2                 # change: machines
#SBATCH --ntasks-per-node=8       # change: GPUs of a machine, one process each
#SBATCH --gpus-per-node=8         # change: the same number
#SBATCH --cpus-per-task=8         # change: num_workers of the config, and 2 more
#SBATCH --time=24:00:00           # change: as long as the partition allows
#SBATCH --requeue
#SBATCH --signal=B:USR1@600       # seconds before the limit: an iteration, and a checkpoint
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append

config=${CONFIG:-my_chain.py}     # change
work_dir=${WORK_DIR:-work_dirs/my_chain}  # change

# source /path/to/venv/bin/activate       # change: what puts compt on the PATH

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

limit_is_near=
near_limit() {
    limit_is_near=yes
    kill -TERM "$!"  # srun passes it on; every process saves a checkpoint and ends
}
trap near_limit USR1

srun compt train "$config" --work-dir "$work_dir" --resume --launcher slurm &
wait "$!"
code=$?
if [ -n "$limit_is_near" ]; then
    wait "$!"  # the signal has ended the first wait
    code=$?
    if [ "$code" -ne 0 ]; then
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$code"
