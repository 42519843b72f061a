"""The environment with torch that perf/make_rivals_env.sh makes: finding it, continuing in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ENVIRONMENT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segprior" / "venv-bench"


def enter(script: str, needed: bool = True) -> None:
    """Continues `script` in that environment if torch is not here. If it is nowhere: leaves with a message where
    it is `needed`, else says so and goes on."""
    try:
        import torch  # noqa: F401

        return
    except ImportError:
        pass
    python = ENVIRONMENT / "bin" / "python"
    if python.is_file() and Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        os.execv(python, [str(python), str(Path(script).resolve()), *sys.argv[1:]])
    message = f"torch is not installed here nor in {ENVIRONMENT}; perf/make_rivals_env.sh makes that environment"
    if needed:
        sys.exit(message)
    print(message, flush=True)
