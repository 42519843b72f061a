#!/usr/bin/env python3
"""Runs the code examples of a README: every fenced block marked `c`, `cpp` or `python`.

    tools/run_readme_examples.py [--readme README.md] [--build build] [--python .venv/bin/python] [--frameworks]

A C or C++ block is a complete program: it is compiled as strict C99 or C++17 with warnings as errors against the
public headers and the built library, then run. A Python block is run by the given interpreter. Each runs in an
empty folder of its own and passes if it ends with exit status 0. A block whose fence reads ```c no-run is skipped.
Python blocks that import torch or jax are run with --frameworks, and those alone; else they are named and left out.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def blocks(text):
    """(language, line number, code) of the examples."""
    for match in re.finditer(r"^```(c|cpp|python)\n(.*?)^```$", text, flags=re.S | re.M):
        yield match[1], text[:match.start()].count("\n") + 1, match[2]


COMPILERS = {"c": [os.environ.get("CC", "cc"), "-std=c99"], "cpp": [os.environ.get("CXX", "c++"), "-std=c++17"]}


def run_compiled(language, code, folder, build):
    source = f"example.{language}"
    (folder / source).write_text(code)
    subprocess.run([*COMPILERS[language], "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{ROOT}/include", source,
                    f"-L{build}", f"-Wl,-rpath,{build}", "-lsegprior", "-lm", "-o", "example"], cwd=folder, check=True)
    subprocess.run(["./example"], cwd=folder, check=True, timeout=300)


def imports_framework(language, code):
    return language == "python" and re.search(r"^(import|from) (torch|jax)\b", code, flags=re.M) is not None


def run_python(code, folder, build, python):
    (folder / "example.py").write_text(code)
    environment = dict(os.environ, MPLBACKEND="Agg", SEGPRIOR_LIBRARY=str(build / "libsegprior.so"))
    subprocess.run([python, "example.py"], cwd=folder, check=True, timeout=300, env=environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", type=pathlib.Path, default=ROOT / "README.md")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="folder of libsegprior.so")
    parser.add_argument("--python", default=str(ROOT / ".venv/bin/python"))
    parser.add_argument("--frameworks", action="store_true", help="run the blocks that import torch or jax")
    arguments = parser.parse_args()
    build = arguments.build.resolve()

    passed, failed = 0, 0
    for language, line, code in blocks(arguments.readme.read_text()):
        name = f"{arguments.readme}:{line} ({language})"
        if imports_framework(language, code) != arguments.frameworks:
            if not arguments.frameworks:
                print(f"left to make test-bindings: {name}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                if language == "python":
                    run_python(code, pathlib.Path(folder), build, arguments.python)
                else:
                    run_compiled(language, code, pathlib.Path(folder), build)
                passed += 1
                print(f"passed: {name}", flush=True)
            except (subprocess.SubprocessError, OSError) as error:
                failed += 1
                print(f"FAILED: {name}: {error}", flush=True)
    print(f"README examples: {passed} passed, {failed} failed")
    # A README without an example that this can run is a mistake; one without a framework's is not.
    return 1 if failed or not (passed or arguments.frameworks) else 0


if __name__ == "__main__":
    sys.exit(main())
