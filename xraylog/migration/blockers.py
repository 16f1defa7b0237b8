"""Find what prevents a migration, each with the way out. Reads the catalog and the rows, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import errors
from psycopg.sql import SQL, Identifier, Literal

from xraylog.database import citus, ddl, interference, migration_record, partitions, schema, session
from xraylog.database.lock_table import LockTable
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import day_counts, old_table, recreate
from xraylog.migration.day_counts import DayCounts
from xraylog.migration.old_table import CONVERTIBLE, OUR_TYPES, OldTable

MAX_NAME_BYTES = 59  # names have at most 63, and the old table's indexes get a suffix of four
MAX_DAYS = 3660  # ten years; each day becomes a partition
MAX_BIGINT = 2**63 - 1
MAX_EXAMPLES = 5  # examples in a message


# Rules, triggers, foreign keys of other tables, publications, policies, statistics, inheritance, uses of the row type.
# Not views, nor the table's own columns, indexes, constraints and sequence.
DEPENDENTS = """
    SELECT DISTINCT
           CASE WHEN k.oid IS NOT NULL THEN 'foreign key' WHEN t.oid IS NOT NULL THEN 'trigger' ELSE 'other' END,
           CASE WHEN k.oid IS NOT NULL THEN k.conrelid::regclass::text
                ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END,
           coalesce(quote_ident(k.conname), quote_ident(t.tgname))
    FROM pg_class c
    JOIN pg_type y ON y.oid = c.reltype
    JOIN pg_depend d ON (d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
                     OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (y.oid, y.typarray))
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_class v ON v.oid = r.ev_class
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
    WHERE c.oid = %s::regclass
      AND d.deptype IN ('n', 'a')
      AND (k.conrelid IS DISTINCT FROM c.oid OR k.confrelid = c.oid)
      AND d.classid <> 'pg_attrdef'::regclass
      AND (v.relkind IN ('v', 'm')) IS NOT TRUE
      AND NOT (d.classid = 'pg_class'::regclass AND d.objid = c.oid)
      AND NOT coalesce(t.tgisinternal, false)
      AND (d.classid <> 'pg_class'::regclass
           OR (SELECT relkind IN ('i', 'I', 'S') OR relispartition FROM pg_class own WHERE own.oid = d.objid) IS FALSE)
    UNION
    SELECT 'other', 'the table that it inherits from, ' || inhparent::regclass, NULL
    FROM pg_inherits WHERE inhrelid = %s::regclass
    ORDER BY 1, 2
"""
# Relations and types that have one of these names, and the word for each in ALTER. Types, because a new table needs a
# type of its name; not array types, which the server renames by itself.
NAME_CONFLICTS = f"""
    SELECT record.relname, {partitions.KIND_OF_RELATION}
    FROM pg_class record
    JOIN pg_namespace n ON n.oid = record.relnamespace
    WHERE n.nspname = %(schema)s AND record.relname = ANY(%(names)s) AND NOT ({migration_record.IS_OURS})
    UNION
    SELECT t.typname, 'type'
    FROM pg_type t
    JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname = %(schema)s AND t.typname = ANY(%(names)s) AND t.typrelid = 0
      AND NOT EXISTS (SELECT FROM pg_type element WHERE element.typarray = t.oid)
    ORDER BY 1
"""  # noqa: S608  # a constant


def all_blockers(conn: Connection, table: OldTable, counts: DayCounts | None) -> list[str]:
    """Return everything that prevents a migration, each with the way out. Without `counts`, rows are not checked."""
    reasons = [*_citus(conn), *day_counts.unreadable(conn, table), *_rights(table), *_row_security(table)]
    reasons += [*_columns(table), *_unique_indexes(table), *_constraints(table), *_long_names(table)]
    reasons += [*_ids(table, counts), *dependents(conn, table.name), *_other_tables(conn)]
    names = ["logs_old", "logs_new", "logs_new_day", old_table.DAY_INDEX, migration_record.TABLE]
    names += [f"{index.name}_old" for index in table.indexes]
    if table.sequence is not None and table.sequence.identity:
        names.append(f"{table.sequence.bare_name}_old")
    elif table.needs_sequence:
        names.append("logs_id_seq")
    reasons += [
        f"{name} exists already, a {kind} with a name that the migration needs: {rename}"
        for name, kind, rename in _name_conflicts(conn, table, names)
    ]
    if counts is not None:
        reasons += [*row_blockers(conn, table, counts), *_locks(conn, table, counts), *_values(conn, table)]
        days = [
            partitions.partition_name(str(day), *partitions.day_bounds(str(day))) for day in counts.dates[:MAX_DAYS]
        ]
        reasons += [
            f"{name} exists already, a {kind} with the name of a partition: {rename}"
            for name, kind, rename in _name_conflicts(conn, table, days)
        ]
    return reasons


def _citus(conn: Connection) -> Iterator[str]:
    """Yield why tables that Citus manages cannot be migrated: Citus itself refuses late, and names another cause."""
    managed = citus.distributed(conn, [*ddl.REFERENCE_TABLES, "logs"])
    if "logs" in managed:
        yield (
            "logs is distributed by Citus, which lets nobody change its sequence any more: copy all tables into a new "
            "database with pg_dump, migrate there, and distribute them then"
        )
    elif managed:
        yield (
            f"{', '.join(managed)} are reference tables of Citus, which refuses new keys to them: "
            f"SELECT undistribute_table('{managed[0]}', cascade_via_foreign_keys := true), each that is left, migrate, "
            "and distribute them then"
        )


def _name_conflicts(conn: Connection, table: OldTable, names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each relation or type that has one of the names: the name, its kind, and the statement that renames it."""
    for name, kind in conn.execute(NAME_CONFLICTS, {"schema": table.schema, "names": names}):
        yield name, kind, f"ALTER {kind.upper()} {_quoted(name)} RENAME TO …"


def raise_without_rights(table: OldTable) -> None:
    """Raise Unsuitable if this role may not continue or undo a migration that another role started."""
    if reasons := list(_rights(table)):
        raise Unsuitable("; ".join(reasons))


def raise_if_unreadable(conn: Connection, table: OldTable) -> None:
    """Raise Unsuitable if this role may not read the rows of the table."""
    ((may_read,),) = conn.execute("SELECT has_table_privilege(%s, 'SELECT')", [_quoted(table.name)])
    if not may_read:
        raise Unsuitable(
            f"{table.name}: expected the right to read it, found none; as {table.owner}: "
            f"GRANT SELECT ON {table.name} TO {_quoted(table.role)}"
        )


def _rights(table: OldTable) -> Iterator[str]:
    if not table.owned:
        yield (
            f"only the owner of {table.name} can migrate it: connect as {table.owner}, "
            f"or ALTER TABLE {table.name} OWNER TO {_quoted(table.role)}"
        )
    if not table.may_create:
        yield f"GRANT CREATE ON SCHEMA {_quoted(table.schema)} TO {_quoted(table.role)}: partitions are new tables"


def _row_security(table: OldTable) -> Iterator[str]:
    if table.row_security:
        yield f"row security is on: ALTER TABLE {table.name} DISABLE ROW LEVEL SECURITY, and set it up again afterwards"


def _columns(table: OldTable) -> Iterator[str]:
    """Yield which columns the new table cannot have."""
    for column in table.columns:
        accepted = CONVERTIBLE.get(OUR_TYPES.get(column.name, ""))
        # day_counts.unreadable checks the id and the timestamp.
        is_fine = column.name in ("id", "timestamp") or column.new_type == column.type
        if accepted and column.plain_type not in accepted and not is_fine:
            yield (
                f"{table.name}.{column.name}: expected {OUR_TYPES[column.name]}, found {column.type}: "
                f"ALTER TABLE {table.name} ALTER COLUMN {column.name} TYPE {OUR_TYPES[column.name]} USING …"
            )
        if column.identity and column.name != "id":
            yield (
                f"{table.name}.{column.name} is an identity column, which cannot be carried over: "
                f"ALTER TABLE {table.name} ALTER COLUMN {_quoted(column.name)} DROP IDENTITY"
            )


def _unique_indexes(table: OldTable) -> Iterator[str]:
    """Yield which unique indexes a partitioned table cannot have."""
    for index in table.indexes:
        is_primary_of_id = index.columns == ("id",) and any(
            constraint.kind == "p" and constraint.columns == ("id",) and constraint.name == index.name
            for constraint in table.constraints
        )
        if index.unique and index.valid and "timestamp" not in index.columns and not is_primary_of_id:
            name = _quoted(index.name)
            drop = f"ALTER TABLE {table.name} DROP CONSTRAINT {name}" if index.of_constraint else f"DROP INDEX {name}"
            yield (
                f"the unique index {index.name} has no timestamp, and a partitioned table cannot keep it: "
                f"{drop}, or add the timestamp to its columns"
            )


def _constraints(table: OldTable) -> Iterator[str]:
    """Yield which constraints the new table, or its partitions, cannot have."""
    for constraint in table.constraints:
        if constraint.kind == "x":
            yield (
                f"the exclusion constraint {constraint.name} cannot be kept by a partitioned table: "
                f"ALTER TABLE {table.name} DROP CONSTRAINT {_quoted(constraint.name)}"
            )
        changing = [of.name for of in table.columns if of.name in constraint.columns and of.changes_meaning]
        if constraint.kind == "c" and changing:
            yield (
                f"the constraint {constraint.name} checks {changing[0]}, whose type changes: "
                f"drop it, and recreate it afterwards"
            )
        if not constraint.enforced:
            yield (
                f"the constraint {constraint.name} is NOT ENFORCED, and cannot be carried over: "
                f"ALTER TABLE {table.name} DROP CONSTRAINT {_quoted(constraint.name)}"
            )
        elif not constraint.valid:
            yield (
                f"the constraint {constraint.name} is NOT VALID: "
                f"ALTER TABLE {table.name} VALIDATE CONSTRAINT {_quoted(constraint.name)}"
            )
        if constraint.kind == "c" and not constraint.inherited:
            yield (
                f"the constraint {constraint.name} is NO INHERIT, and partitions would not have it: "
                f"recreate it without that"
            )


def _long_names(table: OldTable) -> Iterator[str]:
    """Yield which names have no room for the suffix that the old table's get."""
    for name in sorted({i.name for i in table.indexes} | {c.name for c in table.constraints}):
        if len(name.encode()) > MAX_NAME_BYTES:
            yield f"the name {name} is longer than {MAX_NAME_BYTES} bytes, and a suffix has to be added: rename it"


def _ids(table: OldTable, counts: DayCounts | None) -> Iterator[str]:
    sequence, largest = table.sequence, counts.largest_id if counts else None
    if sequence is not None and sequence.increment < 0:
        yield f"the sequence {sequence.name} counts down: ALTER SEQUENCE {sequence.name} INCREMENT 1, from a free range"
    if sequence is not None and sequence.type == "bigint" and largest is not None and largest >= sequence.maximum:
        yield f"the largest id is {largest}, and the sequence {sequence.name} ends there: raise its MAXVALUE"
    elif largest is not None and largest >= MAX_BIGINT:
        yield f"the largest id is {largest}, the last one of a bigint: give that row another id"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _quoted(name: str) -> str:
    return Identifier(name).as_string(None)


def dependents(conn: Connection, table: str) -> Iterator[str]:
    """Yield what depends on the table, so that a rename or a drop would affect it, each with the way out."""
    ((oid,),) = conn.execute("SELECT %s::regclass::oid", [table])
    for kind, what in interference.views(conn, oid):
        yield (
            f"the {kind} {what} would follow the rename: DROP {kind.upper()} {what}, and recreate it afterwards, "
            f"with its grants (its text: SELECT pg_get_viewdef({Literal(what).as_string(conn)}))"
        )
    for kind, what, name in conn.execute(DEPENDENTS, [table, table]):
        if kind == "foreign key":
            yield (
                f"a foreign key of {what} points at {table}, where ids are not unique any more: "
                f"ALTER TABLE {what} DROP CONSTRAINT {name}"
            )
        elif kind == "trigger":
            yield (
                f"the trigger {name} cannot be carried over: DROP TRIGGER {name} ON {table}, and recreate it afterwards"
            )
        else:
            yield f"{what} uses {table} and cannot be carried over: drop it, and recreate it afterwards"


AMBIGUOUS = """
    SELECT c.relname
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = ANY(%s) AND n.nspname = ANY(current_schemas(false)) AND current_schema() <> %s
    GROUP BY c.relname
    HAVING count(*) > 1
    ORDER BY c.relname
"""


def ambiguous_tables(conn: Connection, schema_name: str) -> list[str]:
    """Return a complaint for each of our tables that a search_path beginning with this schema finds in another one."""
    return [
        f"{name} is in two schemas of the search_path, and logs is not in the first one: rename one of them"
        for (name,) in conn.execute(AMBIGUOUS, [list(ddl.TABLES), schema_name])
    ]


def _other_tables(conn: Connection) -> Iterator[str]:
    found = schema.inspect(conn)
    others = {name: table for name, table in found.tables.items() if name != "logs"}
    yield from schema.misfits(others, Identifier(conn.info.user).as_string(conn))


def row_blockers(conn: Connection, table: OldTable, counts: DayCounts) -> Iterator[str]:
    """Yield which rows cannot be migrated because of their time or their id, each kind with the way out."""

    def examples(condition: SQL) -> str:
        query = SQL("SELECT id, {moment}::text FROM {table} WHERE {condition} ORDER BY id LIMIT {limit}").format(
            moment=table.utc_timestamp,
            table=Identifier(table.name),
            condition=condition,
            limit=Literal(MAX_EXAMPLES),
        )
        return ", ".join(f"id {id_}: {at}" if at else f"id {id_}" for id_, at in conn.execute(query))

    def way_out(condition: SQL) -> str:
        query = f"SELECT * FROM {table.name} WHERE {condition.as_string(None)}"  # noqa: S608  # only printed
        return f"which: {query}; give them a time, or delete them"

    if counts.without_time:
        is_null = SQL('"timestamp" IS NULL')
        yield f"{_rows(counts.without_time)} without a timestamp ({examples(is_null)}); {way_out(is_null)}"
    if counts.at_infinity:
        is_infinite = SQL('NOT isfinite("timestamp")')
        yield f"{_rows(counts.at_infinity)} at infinity ({examples(is_infinite)}); {way_out(is_infinite)}"
    if counts.out_of_range:
        is_out_of_range = SQL("\"timestamp\" < '0001-01-02' OR \"timestamp\" >= '9999-12-31'")
        yield f"{_rows(counts.out_of_range)} with a time not from 0001-01-02 to 9999-12-30; {way_out(is_out_of_range)}"
    if counts.without_id:
        yield f"{_rows(counts.without_id)} without an id (id IS NULL): give them one, or delete them"
    if len(counts.days) > MAX_DAYS:
        yield (
            f"the rows are of {len(counts.days)} days, more than {MAX_DAYS}: each would be a partition. "
            f"{_first_and_last(counts)}; correct or delete rows whose day is wrong"
        )


def _locks(conn: Connection, table: OldTable, counts: DayCounts) -> Iterator[str]:
    """Yield the setting that has to be raised before a query can read all of the new table."""
    indexes = len(list(recreate.indexes(table, "logs", named=False)))
    shortage = LockTable.of(conn).shortage(len(counts.days), len(counts.days) * (1 + indexes))
    if shortage is not None:
        yield f"the rows are of {len(counts.days)} days. {_first_and_last(counts)}; {shortage}"


def _first_and_last(counts: DayCounts) -> str:
    days = list(counts.days.items())
    ends = (days[:MAX_EXAMPLES], days[-MAX_EXAMPLES:])
    text = "; ".join(", ".join(f"{day} ({rows} rows)" for day, rows in part) for part in ends)
    return f"The first and the last of them: {text}"


def _values(conn: Connection, table: OldTable) -> Iterator[str]:
    """Yield which values the new table would refuse: text that is no address, ids that the reference tables lack."""
    name = Identifier(table.name)
    source = table.column("source_ip")
    if source is not None and source.plain_type not in ("inet", "cidr"):
        try:
            with conn.transaction():
                conn.execute(SQL("SELECT count(source_ip::text::inet) FROM {}").format(name))
        except errors.DataError as error:
            yield (
                f"{table.name}.source_ip has text that is no address: {session.message(error)}; "
                f"correct it, or make it NULL"
            )
    existing = schema.inspect(conn).tables
    for column, referenced in ddl.KEYS.items():
        found = table.column(column)
        if found is None or found.plain_type not in CONVERTIBLE["bigint"] or table.has_key(column):
            continue
        unknown = (
            SQL("NOT EXISTS (SELECT FROM {} r WHERE r.id = l.{})").format(Identifier(referenced), Identifier(column))
            if referenced in existing
            else SQL("true")
        )
        query = SQL(
            "SELECT count(*), min(l.{column}) FROM {table} l WHERE l.{column} IS NOT NULL AND {unknown}"
        ).format(column=Identifier(column), table=name, unknown=unknown)
        ((count, smallest),) = conn.execute(query)
        if count:
            yield (
                f"{_rows(count)} with a {column} that is not in {referenced} (the smallest is {smallest}): "
                f"add those names to {referenced}, or make {column} NULL in these rows"
            )
