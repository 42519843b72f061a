"""The directive `segprior-commands`: the command line's own help, of the command and of its subcommands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).parents[2] / "bindings/python"


def help_of(*words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "COLUMNS": "100"}
    command = [sys.executable, "-c", "from segprior.cli import main; main()", *words, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.replace("usage: -c", "usage: segprior")


def printed(text: str) -> nodes.Node:
    return nodes.container("", nodes.literal_block(text, text, language="text"), classes=["help"])


class Commands(SphinxDirective):
    """One section per subcommand, with its help as printed by `segprior SUBCOMMAND --help`."""

    def run(self) -> list[nodes.Node]:
        top = help_of()
        names = re.search(r"\{([\w,-]+)\}", top)
        if not names:
            raise self.error(f"segprior --help names no subcommands:\n{top}")
        found: list[nodes.Node] = [printed(top)]
        for name in names.group(1).split(","):
            section = nodes.section(ids=[f"segprior-{name}"])
            title = nodes.title()
            title += nodes.literal(text=f"segprior {name}")
            section += [title, printed(help_of(name))]
            self.state.document.note_explicit_target(section)
            found.append(section)
        return found


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("segprior-commands", Commands)
    return {"parallel_read_safe": True}
