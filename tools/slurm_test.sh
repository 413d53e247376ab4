#!/usr/bin/env bash
# slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
# Sizes from the variables GPUS, GPUS_PER_NODE, CPUS_PER_TASK; more for srun in SRUN_ARGS.
source "$(dirname "$0")/launch.sh"
run_slurm test 2 "$@"
