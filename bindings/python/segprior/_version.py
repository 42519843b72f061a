"""The package's version: that of the C library it was written for (include/segprior/core.h)."""

__version__ = "0.4.0"
