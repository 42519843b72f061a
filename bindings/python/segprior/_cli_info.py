"""The command `segprior info`: what is installed, and what it can use on this machine."""

from __future__ import annotations

import argparse
import ctypes as ct
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _ffi
from ._version import __version__
from .errors import LibraryError

_NAME_BYTES = 256
_COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_VECTOR_EXTENSIONS = ("sse4_2", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "asimd", "sve")


def add_info(commands: Any) -> None:
    p = commands.add_parser("info", help="version, backends and devices of the library, and what it finds")
    p.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> int:
    for name, text in lines():
        print(f"{name:9} {text}")
    return 0


def lines() -> Iterator[tuple[str, str]]:
    """(title, text) of each line of `segprior info`."""
    lib = _ffi.library()
    cuda_devices = lib.device_count(_ffi.CUDA)
    yield "package", __version__
    yield "library", f"{lib.version_string}  {lib.path}"
    yield "backends", "CPU, CUDA" if lib.has_cuda() else "CPU (built without CUDA)"
    yield "devices", f"{lib.device_count(_ffi.CPU)} cpu, {cuda_devices} cuda"
    yield "cpu", _processor()
    yield "threads", _threads()
    for ordinal in range(cuda_devices):
        yield f"cuda:{ordinal}", _gpu(ordinal)
    yield "python", f"{platform.python_version()}, numpy {importlib.metadata.version('numpy')}"
    yield "torch", installed("torch") or "not installed: pip install 'segprior[torch]'"
    yield "jax", _jax()
    yield "pictures", _pictures()


def installed(package: str) -> str | None:
    """The version of an installed package, without importing it; None if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Name and vector extensions. The library picks its vector code by the latter at run time."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.machine()
    fields = [[part.strip() for part in line.split(":", 1)] for line in text.splitlines() if ":" in line]
    values = dict(reversed(fields))  # of the first processor
    flags = (values.get("flags") or values.get("Features") or "").split()
    extensions = [name for name in _VECTOR_EXTENSIONS if name in flags]
    name = values.get("model name", platform.machine())
    return f"{name}; {' '.join(extensions) or 'no known vector extension'}"


def _threads() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS")
    return f"{asked} (OMP_NUM_THREADS), of {usable} processors" if asked else f"{usable}, one per processor"


def _gpu(ordinal: int) -> str:
    """Name and compute capability, asked of the driver."""
    try:
        driver = ct.CDLL("libcuda.so.1")
    except OSError as error:
        return f"driver not found: {error}"
    device, name, number = ct.c_int(), ct.create_string_buffer(_NAME_BYTES), ct.c_int()
    capability = []
    if driver.cuInit(0) or driver.cuDeviceGet(ct.byref(device), ordinal):
        return "the driver does not answer"
    if driver.cuDeviceGetName(name, _NAME_BYTES, device):
        return "the driver does not tell its name"
    for attribute in _COMPUTE_CAPABILITY:
        driver.cuDeviceGetAttribute(ct.byref(number), attribute, device)
        capability.append(str(number.value))
    return f"{name.value.decode(errors='replace')}, compute capability {'.'.join(capability)}"


def _jax() -> str:
    version = installed("jax")
    if version is None:
        return "not installed: pip install 'segprior[jax]'"
    try:
        return f"{version}, handlers {_ffi.jax_library_path()}"
    except LibraryError as error:
        return f"{version}, but {error}"


def _pictures() -> str:
    """The packages that `segment`, `cut` and the demonstration need."""
    needed = ("pillow", "scikit-learn", "scikit-image", "matplotlib")
    missing = [name for name in needed if installed(name) is None]
    return (
        f"no {', '.join(missing)}: pip install 'segprior[cli]'"
        if missing
        else "segment, cut and demo can run"
    )
