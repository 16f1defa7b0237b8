"""What holds for each test with a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture(autouse=True)
def leaves_no_sink() -> Iterator[None]:
    """Remove the log sinks of a run in this process: they would write to a closed file in later tests."""
    yield
    logger.remove()
