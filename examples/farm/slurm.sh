#!/bin/sh
# A film as a job array: every segment is a task, in any order, as often as the scheduler likes.
#
#   hasn plan film.mkv film-4k.mkv                   # says how many segments there are: 0 to 719, say
#   id=$(sbatch --parsable --gres=gpu:1 --array=0-719 slurm.sh film-4k.mkv.hasn)
#   sbatch --dependency=afterok:$id --wrap "hasn join film-4k.mkv.hasn"
#
# The folder, the film and hasn have the same names on all machines. A task that is killed or requeued leaves nothing
# half done.
#SBATCH --job-name=hasn
#SBATCH --requeue
exec hasn segment "$1" "$SLURM_ARRAY_TASK_ID"
