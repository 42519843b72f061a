#!/usr/bin/env python3
"""Doxygen's INPUT_FILTER: makes the plain comments of the public headers comments of Doxygen's.

    doxygen_filter.py include/segprior/softmax.h

The headers are written for people, with formulas as text and types such as `[B, I, *S]`. Nothing of that is
markup, so all of Doxygen's special characters are escaped; an indented part of a block comment becomes
verbatim text; `/* since 0.2 */` in a struct holds for all fields after it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/|(?:^[ \t]*//[^\n]*\n)+|//[^\n]*", re.DOTALL | re.MULTILINE)
RULER = re.compile(r"^\s*-{3,}")
SINCE = re.compile(r"since (\d+\.\d+)$")


def paragraphs(lines: list[str]) -> str:
    """Text with its markup escaped: prose is filled, what is indented by two or more stays as it is."""
    parts: list[str] = []
    verbatim: list[str] = []

    def end_verbatim() -> None:
        if any(line.strip() for line in verbatim):
            indent = min(len(line) - len(line.lstrip()) for line in verbatim if line.strip())
            body = "\n".join(line[indent:] for line in verbatim).strip("\n")
            parts.append(f"\n\\verbatim\n{body}\n\\endverbatim\n")
        verbatim.clear()

    for line in lines:
        if line.startswith("  ") or (verbatim and not line.strip()):
            verbatim.append(line)
        else:
            end_verbatim()
            parts.append(escape(line.strip()))
    end_verbatim()
    return "\n".join(parts)


def escape(text: str) -> str:
    text = re.sub(r"([\\@&$#<>%\"])", r"\\\1", text).replace("::", "\\::")
    text = re.sub(r"\b(segprior_\w+\.\w)", r"%\1", text)  # fields are no targets of breathe's links
    text = re.sub(r"`([^`]+)`", r"<tt>\1</tt>", text)
    return re.sub(r"^([-+*])", r"\\\1", text)


def block_lines(comment: str) -> list[str]:
    """The text of a comment without its frame, each line's indentation counted from the text's own."""
    if comment.lstrip().startswith("//"):
        lines = [re.sub(r"^\s*///?<? ?", "", line) for line in comment.rstrip("\n").split("\n")]
    else:
        lines = comment[2:-2].split("\n")
        if all(line.lstrip().startswith("*") or not line.strip() for line in lines[1:]):
            lines = [re.sub(r"^\s*\* ?", "", line) for line in lines]
        else:  # continuation lines are aligned with the code, their indentation says nothing
            lines = [line.strip() for line in lines]
        lines[0] = lines[0].strip()
    return [line.rstrip() for line in lines]


def translate(source: str, name: str) -> str:
    """The header with Doxygen's comments."""
    # An inline namespace is no part of the names that are written.
    source = re.sub(r"(?m)^(inline namespace|\}  // namespace) SEGPRIOR_CPP_NAMESPACE.*\n", "", source)
    # Nor are bases that only share code.
    source = re.sub(r"(?m)^((?:struct|class) \w+) : (?:private )?detail::[^{]*\{", r"\1 {", source)
    out: list[str] = []
    position = 0
    since = ""
    first = True
    for match in COMMENT.finditer(source):
        code = source[position : match.start()]
        if "}" in code:
            since = ""
        out.append(code)
        position = match.end()
        text = match.group()
        lines = block_lines(text)
        plain = " ".join(lines).strip()
        own_line = not source[: match.start()].rpartition("\n")[2].strip()
        inside = since_of(plain) if own_line else ""
        if inside:
            since = inside
        elif not plain or RULER.match(plain) or plain.startswith(("clang-format", "namespace")):
            pass
        elif own_line and first:
            out.append(f"/** \\file {name}\n{paragraphs(lines)}\n*/")
            first = False
        elif own_line:
            out.append(f"/** {paragraphs(lines)}{note(since)} */")
        else:
            out.append(f"/**< {paragraphs(lines)}{note(since)} */")
        if text.endswith("\n"):
            out.append("\n")
    out.append(source[position:])
    return "".join(out)


def since_of(plain: str) -> str:
    match = SINCE.match(plain)
    return match.group(1) if match else ""


def note(since: str) -> str:
    return f" (since {since})" if since else ""


if __name__ == "__main__":
    path = Path(sys.argv[1])
    sys.stdout.write(translate(path.read_text(encoding="utf-8"), path.name))
