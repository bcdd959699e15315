#!/usr/bin/env bash
# Makes the figures that README and docs speak of, each as text and as JSON, in bench/results/<processor>/:
#   attend    attention alone beside llama.cpp's (cases/perf_*.txt)
#   limits    attention alone beside its roofline, lists beside dense, quantised caches
#             (cases/perf_limits.txt, cases/perf_quantised.txt)
#   side      scores from side data beside those from packed keys (cases/perf_side.txt)
#   grad      its gradients beside its forward (cases/perf_attend_grad.txt)
#   choose    what choosing costs, as a share of dense attention (cases/perf_choose.txt)
#   saved     attention alone, all rounds, for lacuna bench --against and --history: saved/TIME-COMMIT.json
#   compare   a real model reads a real text: stock, Lacuna dense, every method
#   tasks     scores of a real model and their agreement with dense, by length (TASKS, LENGTHS)
# Whole runs of real models by method and by length, and the cost of hosting: bench/study.py.
# Contracts on texts that no tuning saw, and what audits and contracts cost: bench/contract_study.py.
#
#   bench/figures.sh [attend] [limits] [side] [grad] [choose] [saved] [compare] [tasks]        all when none is named
#
# LACUNA_BUILD (build/release), LACUNA_MODELS (models), LLAMA_DIR and THREADS (2) say where and how;
# METHODS says which compare and tasks take.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=${LACUNA_BUILD:-build/release} models=${LACUNA_MODELS:-models} threads=${THREADS:-2}
methods=${METHODS:-streamingllm,trianglemix,xattention,sampleattention,minference,flexprefill}
processor=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | tr '[:upper:]' '[:lower:]' |
  sed -E 's/\((r|tm)\)//g; s/@.*//; s/\b(processor|cpu)\b//g' | tr -cs 'a-z0-9' '-' | sed 's/^-//; s/-$//')
grep -q amx_bf16 /proc/cpuinfo && processor+=-amx
out=${OUT_DIR:-bench/results}/$processor
mkdir -p "$out"
version=${LACUNA_COMMIT:-$(git rev-parse --short HEAD)}

# keep NAME command...: runs it, shows it, and keeps what it prints under a head that says what it was.
keep() {
  local file=$out/$1.txt
  shift
  {
    local command="$*" # as it reads from the tree, wherever the pieces lay
    command=${command//$out/bench\/results\/$processor} command=${command//$build/build\/release}
    printf '%s\n' "bench/figures.sh: ${command//$models/models}"
    printf '%s\n\n' "commit $version; $(date -u +%Y-%m-%d); $(nproc) cores, $threads threads; $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
  } >"$file"
  "$@" | tee -a "$file"
}

[[ $# -gt 0 ]] || set -- attend limits side grad choose saved compare tasks
for what in "$@"; do
  case $what in
    attend) keep attend "$build/lacuna" bench cases/perf_attend.txt cases/perf_strided.txt --peer llama --json "$out/attend.json" ;;
    limits) keep limits "$build/lacuna" bench cases/perf_limits.txt cases/perf_quantised.txt --json "$out/limits.json" ;;
    side) keep side "$build/lacuna" bench cases/perf_side.txt --json "$out/side.json" ;;
    grad) keep attend_grad "$build/lacuna" bench cases/perf_attend_grad.txt --json "$out/attend_grad.json" ;;
    choose) keep choose "$build/lacuna" bench cases/perf_choose.txt --json "$out/choose.json" ;;
    saved)
      mkdir -p "$out/saved"
      "$build/lacuna" bench cases/perf_attend.txt --save "$out/saved/$(date -u +%Y-%m-%dT%H%M%S)-$version.json"
      ;;
    compare)
      keep compare "$build/lacuna" compare -m "$models/smollm2-135m-instruct.gguf" -f "$models/texts/demo.txt" \
        -p "$(cat "$models/texts/demo_question.txt")" --methods "$methods" -t "$threads" --json "$out/compare.json"
      ;;
    tasks)
      for task in ${TASKS:-needle multi-key kv-retrieval variable-tracking multi-turn perplexity}; do
        keep "task-$task" "$build/lacuna" compare -m "$models/smollm2-135m-instruct.gguf" --task "$task" \
          -f "$models/texts/demo.txt" --lengths "${LENGTHS:-1k,2k,4k}" --methods "$methods" -t "$threads" --json "$out/task-$task.json"
      done
      ;;
    *) echo "error: '$what': need attend, limits, side, grad, choose, saved, compare or tasks" >&2; exit 1 ;;
  esac
done
