"""Imported before everything that needs torch: says what is missing."""

from __future__ import annotations

from ..errors import LibraryError

# The oldest that the tests have run with. There compiling for shapes that change takes
# torch._dynamo.config.capture_dynamic_output_shape_ops = True, and calls that return a report have no vmap.
_LEAST = (2, 7)
_RULE = f"segprior.torch needs torch >= {_LEAST[0]}.{_LEAST[1]}"

try:
    import torch
except ImportError as error:
    raise LibraryError(f"{_RULE}, which cannot be imported: {error}") from error


def check_version(found: str) -> None:
    if tuple(map(int, found.split(".")[:2])) < _LEAST:
        raise LibraryError(f"{_RULE}; {found} is installed")


check_version(torch.__version__)
