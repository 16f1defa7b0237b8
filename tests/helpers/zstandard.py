"""Provide the standard library's compression.zstd; before Python 3.14, its backport in its place."""

from __future__ import annotations

import sys
import types

IN_PYTHON = sys.version_info >= (3, 14)  # a process of its own has it, too
if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

    compression = types.ModuleType("compression")
    compression.zstd = zstd  # type: ignore[attr-defined]
    sys.modules |= {"compression": compression, "compression.zstd": zstd}

__all__ = ["IN_PYTHON", "zstd"]
