#!/usr/bin/env bash
# Compiles the CUDA kernels, compares them with the reference on this machine's GPU, and keeps the result.
#   tools/gpu_check.sh [--run-only] [FILE]     FILE: the result (bench/results/gpu-<card>.txt)
#
# --run-only takes build/cuda/lacuna-cuda-test as it is, for a machine with a GPU but no compiler.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$lacuna_root"

build=yes
if [[ ${1:-} = --run-only ]]; then
  build=no
  shift
fi
(($# <= 1)) || die "usage: tools/gpu_check.sh [--run-only] [FILE]"

command -v nvidia-smi >/dev/null || die "no nvidia-smi: this machine has no NVIDIA GPU, or no driver"
card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)
[[ -n $card ]] || die "nvidia-smi sees no GPU"
name=$(tr '[:upper:]' '[:lower:]' <<<"${card%%,*}" | tr -cs 'a-z0-9' '-')
file=${1:-bench/results/gpu-${name%-}.txt}

if [[ $build = yes ]]; then tools/build.sh cuda --target lacuna-cuda-test; fi
[[ -x build/cuda/lacuna-cuda-test ]] || die "build/cuda/lacuna-cuda-test is missing; run without --run-only"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
build/cuda/lacuna-cuda-test >"$log" 2>&1 || status=$?
grep -q SKIPPED "$log" && status=1 # a test that found no GPU has proved nothing
mkdir -p "$(dirname "$file")"
{
  echo "tools/gpu_check.sh"
  echo "card, driver: $card"
  cat "$log"
} >"$file"
cat "$log"
((status == 0)) || die "the check failed; its output is in $file"
say "result in $file"
