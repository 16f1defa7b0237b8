"""Write config files for tests."""

from __future__ import annotations

from pathlib import Path


def written(folder: Path, text: str | bytes) -> Path:
    """Write config.ini in this folder; return its path."""
    path = folder / "config.ini"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path
