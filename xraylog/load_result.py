"""The result of storing lines. Results are added up over a run. Knows no file and no database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from xraylog.records import DATED, Batch, Ignored


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The outcome of storing some lines. Results can be added up."""

    lines: int = 0
    rows: int = 0  # lines that are now in `logs`
    rejected: int = 0  # unparsed lines: they are now in `rejected_lines`
    ignored: Mapping[Ignored, int] = field(default_factory=dict)
    new_names: Mapping[str, int] = field(default_factory=dict)  # by reference table
    imported: int = 0  # rows from the buffer; not in `rows`, because an earlier run read and counted their lines
    imported_rejected: int = 0
    older: int = 0  # 1 if the database was found to lack lines that it had confirmed
    missing: int = 0  # bytes of lines that are lost: not in the database, a log or the buffer
    dropped: int = 0  # rows that a trigger of the operator on `logs` dropped
    foreign: int = 0  # unparsed lines that xray did not write, as far as the parser can tell
    misdated: int = 0  # unparsed lines whose date is impossible
    newest: str = ""  # minute of the newest record, UTC, "2025-11-17 10:15"

    def __add__(self, other: LoadResult) -> LoadResult:
        return LoadResult(
            self.lines + other.lines,
            self.rows + other.rows,
            self.rejected + other.rejected,
            Counter(self.ignored) + Counter(other.ignored),
            Counter(self.new_names) + Counter(other.new_names),
            self.imported + other.imported,
            self.imported_rejected + other.imported_rejected,
            self.older + other.older,
            self.missing + other.missing,
            self.dropped + other.dropped,
            self.foreign + other.foreign,
            self.misdated + other.misdated,
            max(self.newest, other.newest),
        )

    @classmethod
    def of(cls, batch: Batch, rows: int, rejected: int, new_names: Mapping[str, int]) -> LoadResult:
        """Return the result of storing a batch."""
        misdated = sum(bad.reason.startswith(DATED) for _, bad in batch.numbered_bad_lines)
        return cls(
            batch.lines,
            rows,
            rejected,
            batch.ignored,
            new_names,
            foreign=len(batch.numbered_bad_lines) - misdated,
            misdated=misdated,
            newest=batch.newest if rows else "",
        )

    @property
    def unaccounted(self) -> int:
        """The number of lines that are neither a row, nor rejected, nor ignored, nor dropped by a trigger."""
        return self.lines - self.rows - self.rejected - sum(self.ignored.values()) - self.dropped

    @property
    def adds_up(self) -> bool:
        """Whether every line that was read is accounted for."""
        return self.unaccounted == 0
