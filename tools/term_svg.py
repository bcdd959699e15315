#!/usr/bin/env python3
"""Draws the text of a terminal as an SVG picture.

    tools/term_svg.py [--title TEXT] [--columns N] < output.txt > picture.svg

Understands colour and bold as a terminal does (ESC[...m); other control sequences are dropped, and of
a line that was written over (carriage returns) the last state counts. Lines without such sequences
are broken between words at N columns (100).
"""
import argparse
import html
import re
import sys
import textwrap

CELL_W, CELL_H, SIZE, PAD, BAR = 8.4, 19, 14, 16, 28  # pixels
BACK, FORE, TITLE = "#1b1f27", "#d7dae0", "#8b93a3"
COLOURS = dict(zip(range(30, 38), ("#6b7280", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", FORE)))
COLOURS.update({code + 60: colour for code, colour in list(COLOURS.items())})
SEQUENCE = re.compile(r"\x1b(?:\[([0-9;]*)([A-Za-z])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|.)")


def spans(line):
    """Pieces (column, text, colour, bold, dim) of a line."""
    line = line.rstrip("\n").rstrip("\r").rsplit("\r", 1)[-1].expandtabs()
    colour, bold, dim, column, at, out = FORE, False, False, 0, 0, []

    def add(text):
        nonlocal column
        text = "".join(ch for ch in text if ch.isprintable())
        if text.strip():
            out.append((column, text, colour, bold, dim))
        column += len(text)

    for match in SEQUENCE.finditer(line):
        add(line[at:match.start()])
        at = match.end()
        if match[2] != "m":
            continue
        for code in (int(c or 0) for c in match[1].split(";")):
            if code == 0:
                colour, bold, dim = FORE, False, False
            elif code in (1, 2, 22):
                bold, dim = code == 1, code == 2
            elif code == 39:
                colour = FORE
            elif code in COLOURS:
                colour = COLOURS[code]
    add(line[at:])
    return out, column


def wrapped(line, columns):
    if "\x1b" in line or "\r" in line or len(line) <= columns:
        return [line]
    return textwrap.wrap(line, columns, drop_whitespace=True, break_on_hyphens=False)


def picture(text, title, columns):
    rows = [spans(part) for line in text.rstrip("\n").split("\n") for part in wrapped(line, columns)]
    width = max([columns for _, columns in rows] + [40]) * CELL_W + 2 * PAD
    height = len(rows) * CELL_H + BAR + PAD
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}" role="img" aria-label="{html.escape(title, True)}">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACK}"/>',
        f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="{SIZE}" xml:space="preserve">',
        f'<text x="{PAD}" y="20" fill="{TITLE}">{html.escape(title)}</text>',
    ]
    for number, (pieces, _) in enumerate(rows):
        for column, piece, colour, bold, dim in pieces:
            out.append(
                f'<text x="{PAD + column * CELL_W:.1f}" y="{BAR + (number + 1) * CELL_H - 5}" '
                f'textLength="{len(piece) * CELL_W:.1f}" fill="{colour}"'
                + (' font-weight="bold"' if bold else "") + (' opacity="0.6"' if dim else "")
                + f">{html.escape(piece)}</text>")
    return "\n".join([*out, "</g>", "</svg>", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--title", default="terminal")
    parser.add_argument("--columns", type=int, default=100)
    arguments = parser.parse_args()
    sys.stdout.write(picture(sys.stdin.read(), arguments.title, arguments.columns))
