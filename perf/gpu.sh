#!/bin/sh
# GPU tests, the comparison of perf/gpu.py, evaluation, and a short real training, on a machine with a GPU and no network.
#
#   make wheels                 on a machine with a network: what a bare one lacks, into wheels/
#   sh perf/gpu.sh [RESULTS]    on the GPU machine, within eight minutes; PYTHON names its interpreter
#
# It needs torch, torchvision, numpy, scipy, h5py, pillow, PyYAML, rich, safetensors and pytest there. What fails does
# not keep the rest from running; the exit status says whether all of it was well.
set -u
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-python3}
RESULTS=${1:-gpu-results}
"$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2>/dev/null || {
    echo "perf/gpu.sh: $PYTHON has no torch that sees a GPU; name another one with PYTHON=" >&2
    exit 1
}
SITE=$(mktemp -d)
trap 'rm -rf "$SITE"' EXIT
mkdir -p "$RESULTS"
RESULTS=$(cd "$RESULTS" && pwd)
if ls wheels/*.whl >/dev/null 2>&1; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$SITE" wheels/*.whl || exit 1
fi
PYTHONPATH=$PWD/src:$SITE${PYTHONPATH:+:$PYTHONPATH}
PYTHONUNBUFFERED=1
export PYTHONPATH PYTHONUNBUFFERED
STATUS=0

part() { # part SECONDS NAME COMMAND...: runs it, keeps what it prints, and goes on
    seconds=$1 name=$2
    shift 2
    echo "== $name"
    timeout "$seconds" "$@" >"$RESULTS/$name.txt" 2>&1 || {
        STATUS=1
        echo "perf/gpu.sh: $name did not end well, or not within $seconds s" | tee -a "$RESULTS/$name.txt" >&2
    }
    tail -n 60 "$RESULTS/$name.txt"
}

part 100 tests "$PYTHON" -m pytest -q -x --maxfail=3 -p no:cacheprovider tests/engine/gpu
part 240 rounds "$PYTHON" perf/gpu.py --json "$RESULTS/rounds.json"
part 60 evaluation "$PYTHON" perf/evaluate.py --device cuda --num_images 8192
part 70 training sh -c '
    "$0" -m fedflair.cli synthesize --num_users 400 --output "$1/store.hdf5" &&
    "$0" -m fedflair.cli train --args_config coarse_scratch --data_path "$1/store.hdf5" --device cuda --precision bf16 \
        --cohort_size 50 --central_num_iterations 40 --evaluation_frequency 20 --run "$1/run"' "$PYTHON" "$SITE"
exit $STATUS
