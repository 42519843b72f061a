"""The package's docstrings, which are plain text, as Sphinx wants them.

Nothing in them is markup but code in backticks, sections (`Args:` ...), Markdown tables and `>>>` examples.
What is indented below prose is a list of arguments, if its lines say `name: text`, or a formula. Names in
single backticks become links where Sphinx knows them, by the role `named`.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxRole
from sphinx.util.inspect import stringify_signature

SECTION = re.compile(r"(Args|Returns|Raises|Attributes|References|Yields|Examples?|Notes?|Limits):$")
CODE = re.compile(r"(``.+?``|`[^`]+`)")
ITEM = re.compile(r"([A-Za-z_*`][\w, .*`()\[\]-]*?): +(?=\S)|([a-z_][\w, ]*):$")


def escape(line: str) -> str:
    """`[B, I, *S]`, `q_` and `|y|` are text, not emphasis, links and substitutions."""
    parts = CODE.split(line)
    return "".join(
        part if index % 2 else re.sub(r"([*|\\])", r"\\\1", part).replace("_ ", "\\_ ")
        for index, part in enumerate(parts)
    )


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def blocks(lines: list[str]) -> list[list[str]]:
    """Lines between blank ones; a section's title is a block of its own."""
    found: list[list[str]] = [[]]
    for line in lines:
        if not line.strip() or SECTION.match(line.strip()):
            found.append([])
        if line.strip():
            found[-1].append(line)
        if SECTION.match(line.strip()):
            found.append([])
    return [block for block in found if block]


def table(block: list[str]) -> list[str]:
    """A Markdown table as a list-table."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        lines += [("   * - " if not index else "     - ") + escape(cell) for index, cell in enumerate(row)]
    return lines


def items(block: list[str]) -> list[str]:
    """`name: text`, and lines that go on deeper, as a definition list; lists in the text stay lists."""
    base = indentation(block[0])
    lines: list[str] = []
    in_list = False
    for line in block:
        text, depth = line.strip(), indentation(line)
        match = ITEM.match(text) if depth == base else None
        if match:
            term = match.group(1) or match.group(2)
            lines += ["", term if "`" in term else f"``{term}``"]
            text = text[match.end() :]
        listed = text.startswith("- ") or (in_list and depth > base + 4)
        if listed != in_list:
            lines.append("")
        in_list = listed
        if text:
            lines.append(" " * max(4, depth - base) + escape(text))
    return lines


def prose(block: list[str]) -> bool:
    return not ITEM.match(block[0].strip())


def translate(lines: list[str]) -> list[str]:
    result: list[str] = []
    level = 0  # indentation of the prose around
    section = ""
    for block in blocks(lines):
        first = block[0]
        title = SECTION.match(first.strip())
        if title:
            section, level = title.group(1), indentation(first)
            result += [f".. rubric:: {'Arguments' if section == 'Args' else section}"]
        elif first.lstrip().startswith(">>>"):
            result += block
        elif len(block) > 2 and all(line.lstrip().startswith("|") for line in block):
            result += table(block)
        elif indentation(first) >= level + 4 and section and prose(block):
            result += [escape(line.strip()) for line in block]
        elif indentation(first) >= level + 4 and not prose(block):
            result += items(block)
        elif indentation(first) >= level + 4:
            result += ["::", "", *block]
        else:
            level, section = indentation(first), ""
            result += [escape(line.strip()) for line in block]
        result.append("")
    return result


class Named(SphinxRole):
    """The role of single backticks: a link where the name is known, in any case code."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        target = {"refdomain": "py", "reftype": "obj", "reftarget": self.text, "refexplicit": False}
        node = pending_xref(self.rawtext, named=True, **target)
        context = self.env.ref_context
        node["py:module"], node["py:class"] = context.get("py:module"), context.get("py:class")
        node += nodes.literal(self.text, self.text, classes=["xref", "py"])
        return [node], []


def unknown(app: Any, environment: Any, node: Any, content: Any) -> Any:
    """A name in single backticks that is no link (an argument, a file) is fine, so is a type's alias."""
    return content if node.get("named") or is_alias(node.get("reftarget", "")) else None


def is_alias(name: str) -> bool:
    modules = [module for path, module in sys.modules.items() if path.startswith("segprior")]
    found = [vars(module)[name] for module in modules if name in vars(module)]
    return bool(found) and not any(isinstance(value, type) for value in found)


def describe(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [] if lines and lines[0].startswith("Alias for field number") else translate(lines)


def constructor(app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any) -> Any:
    """What to show as a class's arguments."""
    if what != "class" or not signature:
        return None
    if re.search(r"\b_\w+[:.,]", signature):
        return "", returns  # a result: made by the library, from private things
    if signature.startswith("(*args"):  # a subclass of a framework's class, of which only the name is there
        own = inspect.signature(obj.__init__)
        return stringify_signature(own.replace(parameters=list(own.parameters.values())[1:])), returns
    return None


def setup(app: Any) -> dict[str, Any]:
    app.add_role("named", Named())
    app.connect("autodoc-process-docstring", describe)
    app.connect("autodoc-process-signature", constructor)
    app.connect("missing-reference", unknown)
    return {"parallel_read_safe": True}
