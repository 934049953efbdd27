#!/bin/sh
# Upscales one video as a job array: each segment is a task, in any order, repeated as often as the scheduler likes.
#
#   hasn plan video.mkv video-4k.mkv                 # prints how many segments there are: 0 to 719, say
#   id=$(sbatch --parsable --gres=gpu:1 --array=0-719 slurm.sh video-4k.mkv.hasn)
#   sbatch --dependency=afterok:$id --wrap "hasn join video-4k.mkv.hasn"
#
# The folder, the video and hasn have the same paths on all machines. A task that is killed or requeued leaves nothing that
# has to be cleaned up.
#SBATCH --job-name=hasn
#SBATCH --requeue
exec hasn segment "$1" "$SLURM_ARRAY_TASK_ID"
