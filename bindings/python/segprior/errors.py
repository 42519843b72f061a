"""Exceptions of the package and how the C library's status codes map to them.

Every exception is a `SegpriorError` and also the built-in exception that fits, so that both
``except segprior.SegpriorError`` and ``except ValueError`` work. The text is the C library's own: it names
the argument, its value and the rule it broke.
"""

from __future__ import annotations


class SegpriorError(Exception):
    """Base of all errors. `status` is the C library's code (core.h), 0 if Python found the error."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class InvalidValueError(SegpriorError, ValueError):
    """An argument's value, shape, strides or device is outside what is documented."""


class InvalidTypeError(SegpriorError, TypeError):
    """An argument is not of the documented type, or its array not of a documented dtype."""


class NotSupportedError(SegpriorError, NotImplementedError):
    """A valid request that this version does not implement."""


class DeviceError(SegpriorError, RuntimeError):
    """No such device or driver, a build without CUDA, or an error of the CUDA runtime."""


class OutOfMemoryError(SegpriorError, MemoryError):
    """The library could not get memory."""


class InternalError(SegpriorError, RuntimeError):
    """A defect of the library, or a context entered by two threads at once."""


class LibraryError(SegpriorError, ImportError):
    """The shared library was not found, could not be loaded or is of another version."""


_CLASSES: dict[int, type[SegpriorError]] = {
    103: InvalidTypeError,
    202: NotSupportedError,
    301: OutOfMemoryError,
    302: DeviceError,
    303: DeviceError,
}


def from_status(status: int, message: str) -> SegpriorError:
    """The exception for a status code: 1xx is the caller's argument, the rest by name."""
    fallback = InvalidValueError if 100 <= status < 200 else InternalError
    return _CLASSES.get(status, fallback)(message, status)
