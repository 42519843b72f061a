"""Pages that show files of the repository, and links between the two.

`{{ repository kernels/csr/csr.md }}` in a page stands for that file, `{{ repository README.md # Limits }}` for
the text below its heading "Limits". Relative links, in such files and in the pages themselves, lead to the page
that shows the file they name, else become the file's name; a link to a file that does not exist is an error. So
the same text works here and where the repository is browsed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.errors import SphinxError

ROOT = Path(__file__).parents[2]
MARKER = re.compile(r"^\{\{ repository (\S+?)(?: # ([^}]+))? \}\}$", re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def shown_files(docs: Path) -> dict[str, str]:
    """The page, without suffix, of every file of the repository that has one."""
    pages: dict[str, str] = {"README.md": "index", "bindings/python/README.md": "api/python"}
    for page in docs.rglob("*.md"):
        name = str(page.relative_to(docs).with_suffix(""))
        pages[str(page.relative_to(ROOT))] = name
        for path, section in MARKER.findall(page.read_text(encoding="utf-8")):
            if not section:
                pages[path] = name
    return pages


def section_of(text: str, heading: str, path: str) -> str:
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise SphinxError(f"{path} has no heading {heading!r}")
    return found.group(2)


def with_site_links(text: str, path: str, pages: dict[str, str]) -> str:
    """The Markdown `text` of the repository's file `path`, its relative links made the site's."""

    def resolve(match: re.Match[str]) -> str:
        picture, label, target, anchor = match.groups()
        if "://" in target or not target:
            return match.group()
        named = os.path.normpath(os.path.join(os.path.dirname(path), target))
        if not (ROOT / named).exists():
            raise SphinxError(f"{path}: the link to {target} leads nowhere")
        if picture:
            return f"![{label}](/{os.path.relpath(named, 'docs')})"
        if named in pages:
            return f"[{label}](/{pages[named]}.md{anchor or ''})"
        return f"`{named}`" if label in (target, named, f"`{named}`") else f"{label} (`{named}`)"

    parts = CODE.split(text)
    return "".join(part if index % 2 else LINK.sub(resolve, part) for index, part in enumerate(parts))


def show(app: Any, page: str, content: list[str]) -> None:
    pages = shown_files(Path(app.srcdir))

    def insert(match: re.Match[str]) -> str:
        path, section = match.groups()
        app.env.note_dependency(str(ROOT / path))
        text = (ROOT / path).read_text(encoding="utf-8")
        return with_site_links(section_of(text, section, path) if section else text, path, pages)

    content[0] = MARKER.sub(insert, with_site_links(content[0], f"docs/{page}.md", pages))


def setup(app: Any) -> dict[str, Any]:
    app.connect("source-read", show)
    return {"parallel_read_safe": True}
