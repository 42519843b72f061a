"""Imported before everything that needs torch: says what is missing."""

from __future__ import annotations

from ..errors import LibraryError

# The first with torch.library.register_vmap.
_LEAST = (2, 5)
_RULE = f"segprior.torch needs torch >= {_LEAST[0]}.{_LEAST[1]}"

try:
    import torch
except ImportError as error:
    raise LibraryError(f"{_RULE}, which cannot be imported: {error}") from error


def check_version(found: str) -> None:
    if tuple(map(int, found.split(".")[:2])) < _LEAST:
        raise LibraryError(f"{_RULE}; {found} is installed")


check_version(torch.__version__)
