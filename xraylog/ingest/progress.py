"""How far the database has the lines of a log in this run, as offsets in the log."""

from __future__ import annotations

from xraylog.database.positions import Position, Range


class Progress:
    """Recorded as a run proceeds, because an outage can end it anywhere: what is not stored then goes to the buffer."""

    def __init__(self) -> None:
        self._stored_to: int | None = None
        self._later: tuple[Range, ...] = ()
        self._confirmed_to = 0

    @property
    def is_known(self) -> bool:
        """Return whether it was looked up where the log is stored."""
        return self._stored_to is not None

    @property
    def stored_to(self) -> int:
        """The offset before which the database has the lines; 0 if that is not known."""
        return self._stored_to or 0

    @property
    def later(self) -> tuple[Range, ...]:
        """Stored ranges after `stored_to`, each with a gap before it."""
        return self._later

    @property
    def confirmed_to(self) -> int:
        """The offset before which storing was confirmed: a failover may lose the lines after it."""
        return self._confirmed_to

    def begin(self, position: Position) -> None:
        """Record where the log is stored already."""
        self._stored_to, self._later = position.offset, position.later

    def store(self, offset: int) -> None:
        """Record that the lines before `offset` are committed."""
        self._stored_to = offset

    def confirm(self, offset: int) -> None:
        """Record that storing the lines before `offset` is confirmed."""
        self._confirmed_to = offset

    def drain(self, offset: int) -> None:
        """Record that the stored lines have left the log, which now has `offset` bytes without a line."""
        self._stored_to = self._confirmed_to = offset
