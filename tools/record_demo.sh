#!/usr/bin/env bash
# Runs 'make demo' and keeps what it prints, so that every figure on the first page has its run:
#   bench/results/demo-<processor>.txt   the output as it came
#   docs/pictures/demo.svg               the same as a picture
#   README.md                            the table and the sentence, between the two demo marks
#
#   tools/record_demo.sh [make arguments...]     e.g. METHODS=xattention

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$lacuna_root"

# A machine with other work gives figures that mean little: whoever reads them shall know.
busy=$(cut -d' ' -f1 /proc/loadavg) warning=
if awk -v load="$busy" -v cores="$(nproc)" 'BEGIN { exit !(load > cores / 4) }'; then
  warning="The machine had other work (load $busy on $(nproc) cores before the run): take the times as rough."
  say "note: $warning"
fi

processor=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | tr '[:upper:]' '[:lower:]' |
  sed -E 's/\((r|tm)\)//g; s/@.*//; s/\b(processor|cpu)\b//g' | tr -cs 'a-z0-9' '-' | sed 's/^-//; s/-$//')
result=bench/results/demo-${processor:-unknown}.txt
mkdir -p bench/results docs/pictures

out=$(mktemp)
trap 'rm -f "$out"' EXIT
make --no-print-directory demo "$@" | tee "$out"

# The line that make echoes is the command; the rest is what lacuna said.
command=$(grep -m 1 '^build/release/lacuna ' "$out") || die "make demo printed no command"
sed -i '0,/^build\/release\/lacuna /{/^build\/release\/lacuna /d}' "$out"
version=$(git rev-parse --short HEAD)
git diff --quiet HEAD -- src include || version+=", changed"
{
  echo "tools/record_demo.sh${*:+ $*}"
  echo "commit $version; $(date -u +%Y-%m-%d); $(nproc) cores; $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
  echo "$command"
  [[ -z $warning ]] || echo "$warning"
  echo
  cat "$out"
} >"$result"

sed -i '/^models\//d' "$out" # what was fetched or there already is no news on the first page
sed -i '/./,$!d' "$out"
{ echo '$ make demo'; cat "$out"; } | tools/term_svg.py --title 'make demo' >docs/pictures/demo.svg

python3 - "$out" "$result" "$warning" <<'PYTHON'
import pathlib, re, sys, textwrap
text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").strip("\n")
text = "\n".join(textwrap.fill(line, 100, break_on_hyphens=False) if len(line) > 100 else line for line in text.split("\n"))
page = pathlib.Path("README.md")
block = (f"<!-- demo: written by tools/record_demo.sh -->\n![The output of make demo](docs/pictures/demo.svg)\n\n"
         f"<details><summary>The same as text</summary>\n\n```\n{text}\n```\n</details>\n\n"
         f"The run is kept in [{sys.argv[2]}]({sys.argv[2]}). {sys.argv[3]}".rstrip() + "\n<!-- /demo -->")
new, found = re.subn(r"<!-- demo.*?<!-- /demo -->", lambda _: block, page.read_text(encoding="utf-8"), flags=re.DOTALL)
if not found:
    sys.exit("error: README.md has no demo marks")
page.write_text(new, encoding="utf-8")
PYTHON
say "kept in $result, docs/pictures/demo.svg and README.md"
