#!/usr/bin/env bash
# slurm_train.sh PARTITION JOB_NAME CONFIG [options of train.py]
# Sizes from the variables GPUS, GPUS_PER_NODE, CPUS_PER_TASK; more for srun in SRUN_ARGS.
source "$(dirname "$0")/launch.sh"
run_slurm train 1 "$@"
