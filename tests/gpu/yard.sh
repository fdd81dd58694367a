#!/bin/sh
# A real yard on the cards of this machine: a slice is leased, a program on it asks CUDA what it has, and the bill is shown.
# `sh tests/gpu/yard.sh PYTHON FOLDER`
set -u
case $1 in */*) python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1") ;; *) python=$(command -v "$1") ;; esac
folder=$2
mkdir -p "$folder"
export HOME="$folder" PYTHONUNBUFFERED=1
yard() { "$python" -m gpuyard "$@"; }
yard doctor
"$python" -m gpuyard up --state "$folder/state" --port 0 > "$folder/up.log" 2>&1 &
up=$!
tries=0
until grep -q 'gpuyard login' "$folder/up.log"; do
  tries=$((tries + 1)); [ $tries -lt 300 ] || { cat "$folder/up.log"; exit 1; }
  sleep 0.1
done
cat "$folder/up.log" | grep -v token
# shellcheck disable=SC2046
yard $(grep -o 'gpuyard login .*' "$folder/up.log" | cut -d' ' -f2-)
yard offers
offer=$(yard offers --json | "$python" -c 'import json, sys; told = json.load(sys.stdin); rows = told.get("items", told) if isinstance(told, dict) else told; print(next(row["name"] for row in rows if row["name"].endswith("quarter")))')
yard run --offer "$offer" --job --name look --follow -- "$python" -c '
import ctypes
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
free, total, pointer = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_uint64()
print("cuInit", cuda.cuInit(0), "context", cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), cuda.cuCtxSetCurrent(context))
cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
print("total", total.value, "free", free.value)
print("one byte beyond the slice:", cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(total.value)))
'
code=$?
yard show look
yard bill
yard down --state "$folder/state" --stop-workloads
wait $up
exit $code
