#!/usr/bin/env bash
# Makes the figures that README and docs speak of, each as text and as JSON, in bench/results/<processor>/:
#   attend    attention alone beside llama.cpp's (cases/perf_*.txt)
#   compare   a real model reads a real text: stock, Lacuna dense, every method
#   hosting   a decoded token at a context of 2048 with and without the plug-in
#   long      Gemma 3 270M reads 26,000 tokens and writes 64: attention by step, density, loss, of every method
#
#   bench/figures.sh [attend] [compare] [hosting] [long]        all of them when none is named
#
# LACUNA_BUILD (build/release), LACUNA_MODELS (models), LLAMA_DIR and THREADS (2) say where and how;
# METHODS (of compare), LONG_METHODS and JOBS (1; runs of `long` side by side) say how much.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=${LACUNA_BUILD:-build/release} models=${LACUNA_MODELS:-models} threads=${THREADS:-2}
methods=${METHODS:-streamingllm,trianglemix,xattention,minference,flexprefill}
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
    [[ -z ${bin:-} ]] || command=${command//"$bin/"/}
    printf '%s\n' "bench/figures.sh: ${command//$models/models}"
    printf '%s\n\n' "commit $version; $(date -u +%Y-%m-%d); $(nproc) cores, $threads threads; $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
  } >"$file"
  "$@" | tee -a "$file"
}

# long_table FILE...: one line per run.
long_table() {
  python3 - "$@" <<'PYTHON'
import json, sys
print(f"{'method':<28} {'TTFT s':>7} {'tok/s':>6} | prompt: {'density':>7} {'lost':>7} {'select s':>8} {'attend s':>8} | "
      f"writing: {'density':>7} {'lost':>7} {'MB/token':>8}")
for path in sys.argv[1:]:
    r = json.load(open(path))
    a, p, d = r["attention_s"], r["lost_mass"], r["lost_mass_decode"]
    print(f"{path.rsplit('-long-', 1)[1][:-5]:<28} {r['ttft_s']:7.2f} {r['decode_tok_s']:6.1f} |         "
          f"{r['density']['prefill']:7.2%} {p['mean']:7.2%} {a['estimate'] + a['budget']:8.2f} {a['attend']:8.2f} |          "
          f"{r['density']['decode']:7.2%} {d['mean']:7.2%} {r['kv_bytes_read_per_token'] / 1e6:8.1f}")
PYTHON
}

[[ $# -gt 0 ]] || set -- attend compare hosting long
for what in "$@"; do
  case $what in
    attend) keep attend "$build/lacuna" bench cases/perf_attend.txt cases/perf_strided.txt --peer llama --json "$out/attend.json" ;;
    compare)
      keep compare "$build/lacuna" compare -m "$models/smollm2-135m-instruct.gguf" -f "$models/texts/demo.txt" \
        -p "$(cat "$models/texts/demo_question.txt")" --methods "$methods" -t "$threads" --json "$out/compare.json"
      ;;
    hosting)
      bin=${LLAMA_DIR:+$LLAMA_DIR/bin}
      bin=${bin:-$(dirname "$(readlink -f "$(command -v llama-bench || ls -d "${LACUNA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lacuna}"/llama-*/bin/llama-bench | head -n 1)")")}
      run=("$bin/llama-bench" -m "$models/smollm2-135m-instruct.gguf" -p 0 -n 64 -d 2048 -r 5 -fa on -t "$threads" -o md)
      keep hosting-stock "${run[@]}"
      keep hosting-lacuna env GGML_BACKEND_PATH="$build/liblacuna-ggml.so" LACUNA="dense quiet=1 report=$out/hosting.json" "${run[@]}"
      ;;
    long)
      runs=$(mktemp -d)
      long=${LONG_METHODS:-dense xattention spargeattn minference flexprefill quest quest+twilight auto}
      for method in $long; do # numbered, so that the table has their order
        n=$((${n:-10} + 1))
        echo "$method $runs/$n-long-$method.json"
      done | xargs -P "${JOBS:-1}" -L 1 sh -c '"$1" run -m "$2/gemma-3-270m.gguf" -f "$2/texts/long.txt" -n 64 --no-chat \
        -t "$3" --audit sample --method "$4" --json "$5" >/dev/null' run "$build/lacuna" "$models" "$threads"
      keep long long_table "$runs"/*.json
      sed -i "1s|.*|LONG_METHODS='$long' bench/figures.sh long (lacuna run -m models/gemma-3-270m.gguf -f models/texts/long.txt -n 64 --no-chat --audit sample; ${JOBS:-1} at a time)|" "$out/long.txt"
      python3 -c 'import json, sys; open(sys.argv[1], "w").write(json.dumps({"runs": [json.load(open(p)) for p in sys.argv[2:]]}, indent=1))' "$out/long.json" "$runs"/*.json
      rm -r "$runs"
      ;;
    *) echo "error: '$what': need attend, compare, hosting or long" >&2; exit 1 ;;
  esac
done
