"""Count the rows of the old table by day. Reads all rows once, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from psycopg.sql import SQL, Identifier

from xraylog.database.session import Connection
from xraylog.migration.old_table import CONVERTIBLE, OUR_TYPES, OldTable

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class DayCounts:
    """What one reading of all rows found."""

    days: Mapping[date, int]  # rows by UTC day, the oldest day first
    without_time: int  # rows whose timestamp is NULL
    at_infinity: int  # rows at infinity
    out_of_range: int  # rows with a time outside of the years 1 to 9999, which Python's dates do not have
    without_id: int  # rows whose id is NULL
    largest_id: int | None

    @property
    def rows(self) -> int:
        """The number of rows that can be migrated."""
        return sum(self.days.values())

    def rows_of(self, days: Iterable[date]) -> int:
        """Return the number of rows of these days."""
        return sum(self.days.get(day, 0) for day in days)

    @property
    def dates(self) -> list[date]:
        """The days that have rows, the oldest first."""
        return list(self.days)


def count(conn: Connection, table: OldTable) -> DayCounts | None:
    """Return the rows of each day, and of none, from one reading of the table; None if `unreadable` has a reason."""
    if any(unreadable(conn, table)):
        return None
    days: dict[date, int] = {}
    without_time = at_infinity = out_of_range = without_id = 0
    largest: int | None = None
    query = SQL("""
        SELECT CASE WHEN isfinite(day) THEN day - date '1970-01-01' END, day IS NULL, rows, no_id, largest
        FROM (SELECT ({moment} AT TIME ZONE 'UTC')::date AS day, count(*) AS rows,
                     count(*) FILTER (WHERE id IS NULL) AS no_id, max(id) AS largest
              FROM {table}
              GROUP BY 1) AS of_day
        ORDER BY day
    """).format(moment=table.utc_timestamp, table=Identifier(table.name))
    for number, is_null, rows, rows_without_id, largest_of_day in conn.execute(query):
        without_id += rows_without_id
        if largest_of_day is not None:
            largest = largest_of_day if largest is None else max(largest, largest_of_day)
        if is_null:
            without_time += rows
        elif number is None:
            at_infinity += rows
        elif not date.min.toordinal() < number + EPOCH.toordinal() < date.max.toordinal():
            out_of_range += rows
        else:
            days[EPOCH + timedelta(days=number)] = rows
    return DayCounts(days, without_time, at_infinity, out_of_range, without_id, largest)


def unreadable(conn: Connection, table: OldTable) -> Iterator[str]:
    """Yield each reason why the rows cannot be counted by day, with the way out."""
    for name in ("id", "timestamp"):
        column = table.column(name)
        if column is None:
            yield f"{table.name}.{name}: expected a column, found none; add it and fill it"
        elif column.plain_type not in CONVERTIBLE[OUR_TYPES[name]]:
            yield (
                f"{table.name}.{name}: expected {OUR_TYPES[name]}, found {column.type}: "
                f"ALTER TABLE {table.name} ALTER COLUMN {name} TYPE {OUR_TYPES[name]} USING …"
            )
    ((known,),) = conn.execute("SELECT count(*) FROM pg_timezone_names WHERE name = %s", [table.zone])
    if not table.has_zone and not known:
        yield f"the times have no zone, and the server does not know {table.zone}: set [parser] timezone in the config"
