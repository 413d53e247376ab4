#!/usr/bin/env bash
# Check and time the decoder on a GPU, on a machine without a network.
#
#   tools/gpu_report.sh --collect WHEELS [PYTHON_VERSION]   where there is a network: fetch
#       what the other machine needs besides its torch and triton (default: Python 3.12)
#   WHEELS=folder tools/gpu_report.sh [REPORT]              there: install it into a folder of
#       its own, run the GPU's tests and the benchmarks
#
# Environment: PYTHON (default python3), DEVICE (cuda), TURNS (10), BENCHMARK_OPTIONS (more
# options for tools/benchmark.py, such as '--size 128x160'), MMCV_CUDA=0 (compile mmcv
# without its CUDA ops: faster, and the back end mmcv is then left out).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

collect() {
  local folder=$1 version=${2:-3.12} package
  mkdir -p "$folder"
  local -a pure=(mmengine==0.10.7 mmdet==3.3.0 mmaction2==1.2.0 importlib-metadata zipp
    addict einops terminaltables termcolor yapf platformdirs rich markdown-it-py mdurl
    pygments six tqdm matplotlib cycler kiwisolver contourpy fonttools pyparsing
    python-dateutil packaging opencv-python-headless av pycocotools scipy shapely
    pillow pyyaml pytest pluggy iniconfig psutil)
  local -a platforms=()
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux2010 \
    manylinux1; do platforms+=(--platform "${tag}_x86_64"); done
  for package in "${pure[@]}"; do
    "$python" -m pip download -q --no-deps --only-binary=:all: --implementation cp \
      --python-version "$version" "${platforms[@]}" -d "$folder" "$package"
  done
  "$python" -m pip download -q --no-deps --no-binary=:all: --no-build-isolation \
    -d "$folder" mmcv==2.1.0
  ls "$folder"
}

install() {
  local site=${SITE:-$PWD/.gpu_site} job_count
  job_count=$(nproc)
  mkdir -p "$site"
  "$python" -m pip install -q --no-index --no-deps --target "$site" --upgrade \
    "$WHEELS"/*.whl
  export PYTHONPATH=$PWD:$site${PYTHONPATH:+:$PYTHONPATH}
  if ! "$python" -c 'import mmcv.ops' 2>/dev/null; then
    local -a flags=(MMCV_WITH_OPS=1 MAX_JOBS="$job_count" CFLAGS='-g0 -O1 -w')
    if [[ ${MMCV_CUDA:-1} == 1 && $device == cuda* ]]; then
      flags+=(FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-$(
        "$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())'
      )}")
    else
      flags+=(CUDA_VISIBLE_DEVICES=)
    fi
    env "${flags[@]}" "$python" -m pip install -q --no-index --no-deps \
      --no-build-isolation --target "$site" "$WHEELS"/mmcv-*.tar.gz
  fi
}

if [[ ${1:-} == --collect ]]; then
  collect "${2:?--collect needs the folder to fetch into}" "${3:-}"
  exit
fi

device=${DEVICE:-cuda}
report=${1:-gpu_report}
mkdir -p "$report"
if [[ -n ${WHEELS:-} ]]; then install; else export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}; fi

echo '== tests =='
"$python" -m pytest -q -rs tests/test_models/test_gpu.py -p no:cacheprovider \
  | tee "$report/tests.txt" || echo 'Some tests failed: do not trust the times.'

bench() {
  local name=$1
  shift
  echo "== $name =="
  # shellcheck disable=SC2086  # options are to be split
  "$python" tools/benchmark.py --device "$device" --turns "${TURNS:-10}" \
    --json "$report/$name.json" "$@" ${BENCHMARK_OPTIONS:-} \
    | tee "$report/$name.txt" || echo "$name failed: see above."
}
all=(--frames 8 --batch 1 8 --mode forward train --dtype float32 bfloat16)
bench eager "${all[@]}"
bench compiled "${all[@]}" --compile
bench sampling --part sampling --frames 8 --batch 1 8 --mode forward train
bench sampling_mmcv --part sampling --frames 8 --batch 1 8 --mode forward train \
  --backend mmcv

echo '== summary =='
"$python" - "$report" <<'PYTHON' | tee "$report/summary.txt"
import json
import sys
from pathlib import Path

from stmixer_mm.evaluation.functional.tables import format_table

TARGETS = {('forward', 1): 4, ('train', 1): 2.5, ('train', 8): 2.5}
columns = ('ours_s', 'literal_s', 'ratio', 'float32_ratio')
table = [('what', *columns, 'target ratio', 'RAM to literal (target 0.333)')]
for name in ('eager', 'compiled', 'sampling', 'sampling_mmcv'):
    path = Path(sys.argv[1], f'{name}.json')
    for row in json.loads(path.read_text()) if path.exists() else ():
        what = f'{name} {row["mode"]} B {row["batch"]} {row["dtype"]} {row["backend"]}'
        target = TARGETS.get((row['mode'], row['batch']), '')
        ram = row['ours_peak_mb'] / max(row['literal_peak_mb'], 0.1)
        values = [row.get(column, '') for column in columns]
        table.append(
            (what, *values, target if row['part'] == 'decoder' else '', f'{ram:.3f}')
        )
print(format_table(table))
PYTHON
