"""One line of --check."""

from __future__ import annotations

from typing import TypeAlias

Finding: TypeAlias = tuple[str, str, str]  # what was looked at, what was found, what to do ("" if nothing)
