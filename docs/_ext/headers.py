"""The directives `c-structs` and `cpp-header`: what a header contains, by Doxygen's list of it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

NAMESPACE = "segprior"


class Header(SphinxDirective):
    """A directive whose argument is a header's name; its content is made of breathe's directives."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n\n".join(self.directives(self.arguments[0])))

    def directives(self, header: str) -> Iterator[str]:
        raise NotImplementedError

    def xml(self, name: str) -> Any:
        folder = Path(self.config.breathe_projects[self.config.breathe_default_project])
        return ElementTree.parse(folder / f"{name}.xml")

    def classes(self, header: str) -> Iterator[str]:
        for found in self.xml(header.replace(".", "_8")).iter("innerclass"):
            if found.get("prot") == "public" and "::detail" not in found.text:
                kind = "class" if found.get("refid").startswith("class") else "struct"
                yield f"```{{doxygen{kind}}} {found.text}\n:members:\n:undoc-members:\n```"


class CStructs(Header):
    """`{c-structs} softmax.h`: its structs with their comments and fields."""

    directives = Header.classes


class CppHeader(Header):
    """`{cpp-header} softmax.hpp`: its description, its classes with all public members, its functions."""

    def directives(self, header: str) -> Iterator[str]:
        yield f"```{{doxygenfile}} {header}\n:sections: briefdescription detaileddescription\n```"
        yield from self.classes(header)
        for member in self.xml(f"namespace{NAMESPACE}").iter("memberdef"):
            if Path(member.find("location").get("file")).name == header:
                kind = "function" if member.get("kind") == "function" else "variable"
                yield f"```{{doxygen{kind}}} {NAMESPACE}::{member.findtext('name')}\n```"


def c_name(app: Any, environment: Any, node: Any, content: Any) -> Any:
    """A name of the C interface in a C++ declaration leads to the C pages."""
    target = node.get("reftarget", "")
    if node.get("refdomain") == "cpp" and target.lower().startswith("segprior_"):
        for name, _, _, page, anchor, _ in environment.get_domain("c").get_objects():
            if name.rpartition(".")[2] == target:
                return make_refnode(app.builder, node["refdoc"], page, anchor, content)
    return None


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("c-structs", CStructs)
    app.add_directive("cpp-header", CppHeader)
    app.connect("missing-reference", c_name)
    return {"parallel_read_safe": True}
