# What dist_*.sh and slurm_*.sh share, which source it.
set -euo pipefail

TOOLS=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
PYTHON=${PYTHON:-python}

# need COUNT WORD…: end with the usage, the script's second line, without COUNT words.
need() {
    if (($# <= $1)); then
        echo "usage: $(sed -n '2s/^# //p' "$0")" >&2
        exit 2
    fi
}

# run_dist TOOL COUNT WORD…: COUNT arguments of the tool, a number of processes or
# none, more options.
run_dist() {
    local tool=$TOOLS/$1.py count=$2
    shift 2
    need "$count" "$@"
    local words=("${@:1:count}")
    shift "$count"
    if [[ ${1:-} =~ ^[0-9]+$ ]]; then
        GPUS=$1
        shift
    fi
    "$PYTHON" "$TOOLS/launch.py" \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="${GPUS:-1}" \
        "$tool" "${words[@]}" --launcher pytorch "$@"
}

# run_slurm TOOL COUNT PARTITION JOB_NAME WORD…: COUNT arguments of the tool, more options.
run_slurm() {
    local tool=$TOOLS/$1.py count=$2
    shift 2
    need $((count + 2)) "$@"
    local partition=$1 job_name=$2 words=("${@:3:count}")
    shift $((count + 2))
    GPUS=${GPUS:-8}
    GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
    export MASTER_PORT=${MASTER_PORT:-$((12000 + RANDOM % 20000))}
    # shellcheck disable=SC2086  # SRUN_ARGS holds several words
    srun --partition="$partition" \
        --job-name="$job_name" \
        --gres="gpu:$GPUS_PER_NODE" \
        --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        "$PYTHON" -u "$tool" "${words[@]}" --launcher slurm "$@"
}
