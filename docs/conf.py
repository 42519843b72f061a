"""Sphinx's configuration, for tools/docs.sh (`make docs`): unknown names are warnings, warnings errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.ext.autodoc.mock import mock

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "_ext"), str(ROOT / "bindings/python")]


def _version() -> str:
    header = (ROOT / "include/segprior/core.h").read_text()
    numbers = dict(re.findall(r"#define SEGPRIOR_VERSION_(MAJOR|MINOR|PATCH) (\d+)", header))
    return "{MAJOR}.{MINOR}.{PATCH}".format(**numbers)


project = "libsegprior"
copyright = "the libsegprior authors, Apache-2.0"
version = release = _version()

extensions = [
    "myst_parser",
    "breathe",
    "sphinx.ext.autodoc",
    "commands",
    "headers",
    "docstrings",
    "repository_pages",
]
exclude_patterns = ["_build", "_ext"]

# Markdown: GitHub's anchors of headings, so that links work there and here.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# C and C++: Doxygen's XML of the public headers.
breathe_projects = {"segprior": str(DOCS / "_build/doxygen/xml")}
breathe_default_project = "segprior"
breathe_domain_by_extension = {"h": "c", "hpp": "cpp"}

# Python: from the docstrings. Of the frameworks, which are large, only the names are needed.
with mock(["torch", "jax", "jaxlib"]):
    import jax
    import torch

    jax.__version_info__, torch.__version__ = (1000, 0), "1000.0"  # newer than any that is asked for
    import segprior.jax
    import segprior.torch

autodoc_default_options = {"members": True, "imported-members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
default_role = "named"

highlight_language = "none"
nitpicky = True
nitpick_ignore_regex = [
    (r"c(pp)?:identifier", r"u?int\d+_t|size_t|std|std::.*|segprior|(segprior::)?detail.*|T|V"),
    # Names of other packages, whose documentation is not part of this site.
    (
        r"py:.*",
        r"(np|numpy|torch|nn|jax|collections|pathlib|typing|ctypes|ct)\..*"
        r"|Path|Sequence|Callable|Iterable|Mapping|Tensor|Array|Module",
    ),
]

html_theme = "furo"
html_title = f"libsegprior {release}"
html_static_path = ["_static"]
html_css_files = ["segprior.css"]
html_copy_source = False
html_show_sphinx = False
