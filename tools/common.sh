# shellcheck shell=bash
# Shared by the shell tools: where things live and how they speak.
# Messages go to stderr, so that a tool's stdout can carry its result.

set -euo pipefail

lacuna_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lacuna_cache=${LACUNA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lacuna}
export LACUNA_CACHE=$lacuna_cache # CMake and Python look in the same place

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Seconds since the shell began, as "3 s" or "2 min 05 s".
took() {
  local s=$((SECONDS - ${1:-0}))
  if ((s < 60)); then printf '%d s' "$s"; else printf '%d min %02d s' $((s / 60)) $((s % 60)); fi
}

# Runs a quiet command with its output in a log; on failure shows the log's end.
#   logged LOG command...
logged() {
  local log=$1
  shift
  "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; die "'$1' failed; the whole log: $log"; }
}

# Turns ninja's "[n/m] ..." lines on stdin into one short line per tenth of the work.
progress() {
  awk -v name="$1" '
    match($0, /^\[[0-9]+\/[0-9]+\]/) {
      split(substr($0, 2, RLENGTH - 2), n, "/")
      tenth = int(10 * n[1] / n[2])
      if (tenth > last) { last = tenth; printf "  %s: %3d %% (%d/%d)\n", name, 10 * tenth, n[1], n[2] }
      fflush()
    }' >&2
}

# A Python environment of the project's own, for pip.
project_venv() {
  local venv=$lacuna_root/.venv
  if [[ ! -x $venv/bin/pip ]]; then
    say "making a Python environment in .venv"
    rm -rf "$venv" && python3 -m venv "$venv" >&2 || die "python3 -m venv failed; run 'make setup' first"
  fi
  printf '%s\n' "$venv"
}
