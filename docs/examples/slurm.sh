#!/bin/bash
# Two machines of four GPUs each under SLURM. Submit with:  sbatch docs/examples/slurm.sh
# The same job continues where it stopped: SLURM sends SIGUSR1 two minutes before the time limit, the run saves and ends
# with status 138, and the job queues itself again.
#SBATCH --job-name=visattn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem=128G
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm-%j.txt
set -euo pipefail

OUTPUT=${OUTPUT:-runs/coco_soft}        # on a file system that all machines see, as are data and features
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

status=0
srun --kill-on-bad-exit=1 uv run visattn fit --config coco_soft --data.root data/coco --data.batch_size 8 \
    --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices 4 --trainer.strategy ddp --trainer.accelerator gpu \
    --output "$OUTPUT" --features runs/features --resume auto || status=$?

if [ "$status" -eq 138 ]; then          # 128 + SIGUSR1: the time was over, not the training
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
