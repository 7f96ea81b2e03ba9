#!/usr/bin/env bash
# Time and memory on a GPU: benchmarks/on_gpu.sh [folder of wheels] [folder for the tables] [arguments of gpu.py]
# In under 10 minutes, on a machine that has JAX and PyTorch with CUDA; what else is needed (keras, namex, optree and, to
# compare, pytorch-metric-learning) comes from the folder of wheels, if it exists. Folders are relative to the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=${1:-.whl}
output=${2:-build/gpu}
shift $(($# < 2 ? $# : 2))

if [ -d "$wheels" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site "$wheels"/*.whl
fi
export PYTHONPATH=/tmp/site:$PWD${PYTHONPATH:+:$PYTHONPATH}
export XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONUNBUFFERED=1
for backend in jax torch; do
    export KERAS_BACKEND=$backend
    timeout 165 python3 -m benchmarks.gpu --seconds 145 --output "$output" "$@" || echo "$backend: ended with exit status $?"
    timeout 130 python3 -m benchmarks.batches --gpu --seconds 120 --output "$output" || echo "$backend, batches: ended with exit status $?"
done
