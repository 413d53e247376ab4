#!/usr/bin/env bash
# dist_test.sh CONFIG CHECKPOINT [GPUS] [options of test.py]
# GPUS (argument or variable) is the number of processes on this machine; without a
# GPU they run on the CPU. For several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT.
source "$(dirname "$0")/launch.sh"
run_dist test 2 "$@"
