#!/usr/bin/env bash
# dist_train.sh CONFIG [GPUS] [options of train.py]
# GPUS (argument or variable) is the number of processes on this machine; without a
# GPU they run on the CPU. For several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT.
set -euo pipefail

CONFIG=${1:?usage: dist_train.sh CONFIG [GPUS] [options of train.py]}
shift
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    GPUS=$1
    shift
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)

PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" "${PYTHON:-python}" "$TOOLS/launch.py" \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="${GPUS:-1}" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "$@"
