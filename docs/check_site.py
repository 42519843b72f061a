#!/usr/bin/env python3
"""Checks the built site: nothing public is missing or undocumented, no link broken, nothing from outside.

    docs/check_site.py docs/_build

Prints one line per check; exit status 1 if one fails.
"""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bindings/python"


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("index", "search", "next", "prev"):
            self.loaded.append(values.get("href", ""))
        elif "src" in values:
            self.loaded.append(values["src"])


def documented(build: Path) -> set[str]:
    """All names that have a place on the site: C, C++ and Python."""
    inventory = InventoryFile.loads((build / "html/objects.inv").read_bytes(), uri="")
    kinds = [kind for kind in inventory.data if kind.split(":")[0] in ("c", "cpp", "py")]
    return {name for kind in kinds for name in inventory.data[kind]}


def exported_functions() -> Iterator[str]:
    """What capi/segprior.map lets out of the library."""
    yield from re.findall(r"^  (segprior_\w+);", (ROOT / "capi/segprior.map").read_text(), re.MULTILINE)


def python_names() -> Iterator[str]:
    """`__all__` of the packages, and of the modules that are named there."""
    public = set(names_of("segprior"))
    yield from public
    for package in "segprior.torch", "segprior.jax":
        yield from names_of(package, public)


def names_of(module: str, public: set[str] | None = None) -> Iterator[str]:
    """The names of a module; those that it has from `segprior` itself (`public`), the priors, as its."""
    path = PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom)]
    modules = {alias.name for node in imports if not node.module for alias in node.names}
    above = {f"segprior.{alias.name}" for node in imports if node.level == 2 for alias in node.names}
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            for name in (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)):
                original = f"segprior.{name}"
                if name in modules:
                    yield from names_of(f"{module}.{name}", public)
                else:
                    yield original if original in above & (public or set()) else f"{module}.{name}"


def text_of(node: ElementTree.Element) -> str:
    parts = [part for kind in ("briefdescription", "detaileddescription") for part in node.iterfind(kind)]
    return " ".join("".join(part.itertext()).strip() for part in parts).strip()


def c_entities(build: Path) -> Iterator[tuple[str, bool]]:
    """Every struct, field, enumerator and function of the C headers, and whether it has a comment.

    A struct's size needs none: every struct's comment says what it is for.
    """
    for path in sorted((build / "doxygen/xml").glob("*.xml")):
        for compound in ElementTree.parse(path).getroot().iterfind("compounddef"):
            name = compound.findtext("compoundname", "")
            in_header = compound.get("kind") == "file" and name.endswith(".h")
            is_struct = compound.get("kind") == "struct" and name.startswith("segprior_")
            if is_struct:
                yield name, bool(text_of(compound))
            for member in compound.iter("memberdef") if in_header or is_struct else ():
                kind, own = member.get("kind"), member.findtext("name", "")
                if kind == "function" or (is_struct and own != "struct_size"):
                    yield f"{name}.{own}" if is_struct else own, bool(text_of(member))
                for value in member.iterfind("enumvalue"):
                    yield value.findtext("name", ""), bool(text_of(value))


def cpp_names(build: Path) -> Iterator[str]:
    """Classes and functions of the C++ header."""
    namespace = build / "doxygen/xml/namespacesegprior.xml"
    if namespace.exists():
        root = ElementTree.parse(namespace)
        yield from (found.text or "" for found in root.iter("innerclass") if found.get("prot") == "public")
        yield from (f"segprior::{found.findtext('name')}" for found in root.iter("memberdef"))


def missing_names(build: Path) -> list[str]:
    known = documented(build)
    unqualified = {name.rpartition(".")[2] for name in known}  # enumerators stand in enums without a name
    missing = [name for name in exported_functions() if name not in known]
    missing += [name for name in python_names() if name not in known]
    missing += [name for name in cpp_names(build) if name not in known and "::detail" not in name]
    missing += [name for name, _ in c_entities(build) if name.rpartition(".")[2] not in unqualified]
    return missing


def undocumented(build: Path) -> list[str]:
    return [name for name, has_text in c_entities(build) if not has_text]


def broken_links(build: Path) -> tuple[list[str], list[str]]:
    """Links within the site that lead nowhere, and what pages load from other sites."""
    html = build / "html"
    pages = {path.resolve(): Page(path) for path in html.rglob("*.html")}
    broken, outside = [], []
    for path, page in pages.items():
        here = path.relative_to(html.resolve())
        outside += [f"{here}: {source}" for source in page.loaded if urlsplit(source).netloc]
        local = [link for link in page.links if not urlsplit(link).scheme and not urlsplit(link).netloc]
        for link in local + [source for source in page.loaded if not urlsplit(source).netloc]:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if parts.scheme != "data" and not target.exists():
                broken.append(f"{here}: {link}")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                broken.append(f"{here}: {link}")
    for sheet in html.rglob("*.css"):
        if re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")):
            outside.append(str(sheet.relative_to(html)))
    return broken, outside


def stale_profile() -> list[str]:
    """Kernels and ranges that the page on profiling names and the sources lack, and ranges that it lacks."""
    text = (ROOT / "docs/profiling.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text() for path in (ROOT / "kernels").rglob("*cuda*"))
    calls = "".join(path.read_text() for path in (ROOT / "capi").glob("*.cpp"))
    ranges = set(re.findall(r'guard\("(\w+)"', calls))
    named = set(re.findall(r"^ {4}(segprior_.*)$", text, re.MULTILINE))
    shown = {name for line in named for name in line.split()}
    kernels = set(re.findall(r"\b\w+_kernel(?:_3d)?\b", text))
    stale = [name for name in sorted(kernels) if not re.search(rf"\b{name}\(", sources)]
    return stale + sorted(ranges ^ shown)


def main() -> int:
    build = Path(sys.argv[1])
    broken, outside = broken_links(build)
    checks = {
        "public names without a place on the site": missing_names(build),
        "C names without a comment": undocumented(build),
        "broken links": broken,
        "things loaded from other sites": outside,
        "kernels and ranges of the profiling page": stale_profile(),
    }
    for what, wrong in checks.items():
        print(f"{'FAILED' if wrong else 'passed'}: {what}" + (f": {len(wrong)}" if wrong else ""))
        for line in wrong:
            print(f"    {line}")
    return 1 if any(checks.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
