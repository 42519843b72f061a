#!/usr/bin/env python3
"""Compares the ABI with what is committed.

    tools/check_abi.py build/libsegprior.so            compare; exit status 1 on a difference
    tools/check_abi.py build/libsegprior.so --update   write tools/abi.txt anew

Two comparisons:
  * exported symbols: the SEGPRIOR_API declarations of include/segprior, the names in capi/segprior.map and the
    library's dynamic symbols have to be the same;
  * layout: sizes and offsets of every public struct, values of every enumerator and macro, and every prototype
    have to be the same as in tools/abi.txt. The lists come from the headers, the numbers from a C program
    that the C compiler builds out of them.
A line that only appears is an addition. A line that changes or goes breaks the ABI: see CONTRIBUTING.md.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAP = ROOT / "capi/segprior.map"
ABI = ROOT / "tools/abi.txt"
EXTENSIBLE = ("_opts", "_inputs", "_outputs", "_grads")  # structs whose first field is struct_size


def headers():
    return sorted((ROOT / "include/segprior").glob("*.h"))


def code(path):
    """A header's text without comments."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(), flags=re.S)


def prototypes(text):
    """{name: normalised prototype} of the SEGPRIOR_API declarations."""
    found = {}
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    for declaration in re.findall(r"SEGPRIOR_API\s+([^;{]*?);", text, flags=re.S):
        declaration = re.sub(r"\s*([(),*])\s*", r"\1", " ".join(declaration.split()))
        found[re.search(r"(\w+)\(", declaration)[1]] = declaration
    return found


def structs(text):
    """{struct: [fields]} of the public structs."""
    found = {}
    for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", text, flags=re.S):
        fields = []
        for declaration in filter(None, (d.strip() for d in body.split(";"))):
            for part in declaration.split(","):
                fields.append(re.search(r"(\w+)\s*(?:\[\w+\])?$", part.strip())[1])
        found[name] = fields
    return found


def constants(text):
    """Enumerators and numeric macros."""
    names = []
    for body in re.findall(r"enum\s*\w*\s*\{(.*?)\}", text, flags=re.S):
        names += [re.match(r"\w+", part.strip())[0] for part in body.split(",") if part.strip()]
    names += re.findall(r"^#define (SEGPRIOR_(?!VERSION_)\w+) +-?\d\w*\s*$", text, flags=re.M)
    return names


def layout():
    """The ABI as sorted lines of text."""
    lines = ["#include <stdio.h>", '#include "segprior/segprior.h"', "int main(void) {"]
    all_prototypes = {}
    for header in headers():
        text = code(header)
        all_prototypes.update(prototypes(text))
        for name, fields in structs(text).items():
            lines.append(f'printf("struct {name}: %zu bytes\\n", sizeof({name}));')
            for field in fields:
                lines.append(f'printf("struct {name}.{field}: offset %zu, %zu bytes\\n", '
                             f"offsetof({name}, {field}), sizeof((({name} *)0)->{field}));")
        for name in constants(text):
            lines.append(f'printf("constant {name}: %lld\\n", (long long){name});')
    lines.append("return 0; }")
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder, "abi.c"), pathlib.Path(folder, "abi")
        source.write_text("\n".join(lines))
        subprocess.run([os.environ.get("CC", "cc"), "-std=c99", f"-I{ROOT}/include", source, "-o", program],
                       check=True)
        output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return output.splitlines() + [f"function {p}" for _, p in sorted(all_prototypes.items())]


def exported(library):
    """Names of the library's defined dynamic symbols, without the version script's own node."""
    output = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True)
    entries = [line.split() for line in output.stdout.splitlines()]
    return {entry[-1].split("@")[0] for entry in entries if entry[-2] != "A"}


def compare_symbols(library):
    declared = set().union(*(prototypes(code(h)) for h in headers()))
    mapped = set(re.findall(r"^\s+(segprior_\w+);", MAP.read_text(), flags=re.M))
    errors = [f"{n}: declared, but not in {MAP.name}" for n in sorted(declared - mapped)]
    errors += [f"{n}: in {MAP.name}, but not declared" for n in sorted(mapped - declared)]
    symbols = exported(library)
    errors += [f"{n}: declared, but not exported by the library" for n in sorted(declared - symbols)]
    errors += [f"{n}: exported by the library, but not declared" for n in sorted(symbols - declared)]
    return errors


def breaking(removed, added):
    """Removed lines that break callers. A struct that carries its own size may grow at its end."""
    lines = set(removed)
    for line in removed:
        grown = re.match(r"struct (\w+): (\d+) bytes", line)
        later = [re.match(rf"struct {grown[1]}: (\d+) bytes", a) for a in added] if grown else []
        if any(m and int(m[1]) > int(grown[2]) for m in later) and grown[1].endswith(EXTENSIBLE):
            lines.discard(line)
    return sorted(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--update", action="store_true", help="write tools/abi.txt")
    arguments = parser.parse_args()

    errors = compare_symbols(arguments.library)
    now = layout()
    if arguments.update:
        ABI.write_text("\n".join(now) + "\n")
    before = ABI.read_text().splitlines() if ABI.exists() else []
    removed, added = [l for l in before if l not in now], [l for l in now if l not in before]
    if removed or added:
        lines = [f"- {line}" for line in removed] + [f"+ {line}" for line in added]
        errors.append("the ABI is not the one in tools/abi.txt:\n  " + "\n  ".join(lines))
        errors.append("this breaks callers, see CONTRIBUTING.md" if breaking(removed, added) else
                      "only additions: record them with tools/check_abi.py <library> --update")
    for error in errors:
        print(error)
    print(f"ABI: {len(now)} lines compared, {'different' if errors else 'same'}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
