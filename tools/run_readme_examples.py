#!/usr/bin/env python3
"""Runs the code examples of README.md: every fenced block marked `c` or `python`.

    tools/run_readme_examples.py [--build build] [--python .venv/bin/python]

A C block is a complete program: it is compiled as strict C99 with warnings as errors against the public headers
and the built library, then run. A Python block is run by the given interpreter. Each runs in an empty folder of
its own and passes if it ends with exit status 0. A block whose fence reads ```c no-run is skipped.
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
    for match in re.finditer(r"^```(c|python)\n(.*?)^```$", text, flags=re.S | re.M):
        yield match[1], text[:match.start()].count("\n") + 1, match[2]


def run_c(code, folder, build):
    (folder / "example.c").write_text(code)
    subprocess.run([os.environ.get("CC", "cc"), "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic",
                    f"-I{ROOT}/include", "example.c", f"-L{build}", f"-Wl,-rpath,{build}", "-lsegprior", "-lm",
                    "-o", "example"], cwd=folder, check=True)
    subprocess.run(["./example"], cwd=folder, check=True, timeout=300)


def run_python(code, folder, build, python):
    (folder / "example.py").write_text(code)
    environment = dict(os.environ, MPLBACKEND="Agg", SEGPRIOR_LIBRARY=str(build / "libsegprior.so"))
    subprocess.run([python, "example.py"], cwd=folder, check=True, timeout=300, env=environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", type=pathlib.Path, default=ROOT / "README.md")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="folder of libsegprior.so")
    parser.add_argument("--python", default=str(ROOT / ".venv/bin/python"))
    arguments = parser.parse_args()
    build = arguments.build.resolve()

    passed, failed = 0, 0
    for language, line, code in blocks(arguments.readme.read_text()):
        name = f"{arguments.readme.name}:{line} ({language})"
        with tempfile.TemporaryDirectory() as folder:
            try:
                if language == "c":
                    run_c(code, pathlib.Path(folder), build)
                else:
                    run_python(code, pathlib.Path(folder), build, arguments.python)
                passed += 1
                print(f"passed: {name}", flush=True)
            except (subprocess.SubprocessError, OSError) as error:
                failed += 1
                print(f"FAILED: {name}: {error}", flush=True)
    print(f"README examples: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
