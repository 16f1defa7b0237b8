"""The plain `logs` table as somebody made it: what it is like, and what stands in the way of its migration.

Reads the catalog and the rows, and changes nothing. What is made of it is in `migration`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from xraylog import database, partitions, schema
from xraylog.database import Connection

LONGEST_NAME = 59  # bytes; PostgreSQL keeps 63, and the old table's indexes get a suffix of four
MOST_DAYS = 3660
EPOCH = date(1970, 1, 1)
FEW = 5  # examples in a message
BY_DAY = "logs_old_by_day"  # an index of ours on the old table, where it has none that finds a day

# What our columns may be in an old table. Text takes every type; a bigint stays one where we have an integer.
CONVERTED: Mapping[str, tuple[str, ...]] = {
    "bigint": ("smallint", "integer", "bigint"),
    "integer": ("smallint", "integer"),
    "timestamp with time zone": ("timestamp with time zone", "timestamp without time zone"),
    "inet": ("inet", "cidr", "text", "character varying", "character"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the old table."""

    name: str
    type: str  # with its length: character varying(64)
    plain_type: str  # without
    not_null: bool
    default: str | None
    collation: str | None  # quoted; None where it is the type's own
    identity: bool
    generated: bool
    comment: str | None

    @property
    def new_type(self) -> str:
        """What it will be: ours are as Schema.md has them, others stay."""
        wanted = OUR_TYPES.get(self.name)
        if wanted is None or (wanted == "integer" and self.plain_type == "bigint"):
            return self.type
        return wanted


OUR_TYPES = {**schema.COLUMNS["logs"], "id": "bigint", "timestamp": "timestamp with time zone"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint of the old table. Those of NOT NULL have names since PostgreSQL 18."""

    name: str
    kind: str  # p, u, c, f, x, n
    definition: str
    columns: tuple[str, ...]
    refers_to: str | None  # a table that is found without its schema
    valid: bool
    inherited: bool  # False: NO INHERIT


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the old table."""

    name: str
    definition: str  # behind USING
    columns: tuple[str | None, ...]  # of the key; None is an expression
    unique: bool
    valid: bool
    of_constraint: bool
    partial: bool


@dataclass(frozen=True, slots=True)
class IdSequence:
    """Where the ids come from."""

    name: str
    type: str
    owned: bool  # by the table's id
    identity: bool


@dataclass(frozen=True, slots=True)
class PlainTable:
    """The old table, as the catalog has it."""

    name: str  # logs, or logs_old
    place: str  # its schema
    path: str  # a search_path that begins with that schema
    owner: str
    owned: bool  # by this role
    may_create: bool  # in that schema
    tablespace: str | None
    comment: str | None
    row_security: bool
    bytes_of_rows: int
    bytes_in_all: int
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...]
    indexes: tuple[Index, ...]
    grants: tuple[tuple[str | None, str | None, str, bool], ...]  # role (None: PUBLIC), column, right, may be granted
    sequence: IdSequence | None
    zone: str  # in which times without a zone are read

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def has_zone(self) -> bool:
        """Whether its times have a zone."""
        column = self.column("timestamp")
        return column is None or column.plain_type == "timestamp with time zone"

    @property
    def moment(self) -> Composable:
        """SQL for a row's time."""
        name = Identifier("timestamp")
        return name if self.has_zone else SQL("({} AT TIME ZONE {})").format(name, Literal(self.zone))

    @property
    def missing_columns(self) -> list[str]:
        """Ours that it has not."""
        return [name for name in OUR_TYPES if self.column(name) is None]


# --- the catalog -------------------------------------------------------------------------------------------

TABLE = """
    SELECT n.nspname, pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'),
           has_schema_privilege(n.oid, 'CREATE'), t.spcname, obj_description(c.oid, 'pg_class'), c.relrowsecurity,
           pg_table_size(c.oid), pg_total_relation_size(c.oid),
           (SELECT string_agg(quote_ident(name), ', ' ORDER BY name <> n.nspname, nr)
            FROM unnest(current_schemas(false)) WITH ORDINALITY AS path (name, nr))
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
    WHERE c.oid = %s::regclass
"""
# attgenerated is there since PostgreSQL 12
COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, NULL), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid),
           (SELECT format('%%I.%%I', n.nspname, c.collname)
            FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
            WHERE c.oid = a.attcollation AND a.attcollation <> t.typcollation),
           a.attidentity <> '', coalesce(to_jsonb(a) ->> 'attgenerated', '') <> '',
           col_description(a.attrelid, a.attnum)
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""
CONSTRAINTS = """
    SELECT k.conname, k.contype::text, pg_get_constraintdef(k.oid),
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS key (number, nr)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.number ORDER BY nr),
           (SELECT relname FROM pg_class WHERE oid = k.confrelid AND pg_table_is_visible(oid)),
           k.convalidated, NOT k.connoinherit
    FROM pg_constraint k
    WHERE k.conrelid = %s::regclass AND k.contype IN ('p', 'u', 'c', 'f', 'x', 'n')
    ORDER BY k.contype, k.conname
"""
# indnkeyatts is there since PostgreSQL 11: before, every column is of the key
INDEXES = """
    SELECT c.relname, substr(rest, strpos(rest, ' USING ') + 7), key, i.indisunique, i.indisvalid,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.conrelid = i.indrelid),
           i.indpred IS NOT NULL
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    CROSS JOIN LATERAL (
        SELECT substr(pg_get_indexdef(c.oid), length(format('CREATE %%sINDEX %%I ON',
                      CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname)) + 1) AS rest,
               ARRAY(SELECT a.attname::text
                     FROM generate_series(0, coalesce((to_jsonb(i) ->> 'indnkeyatts')::int, i.indnatts) - 1) AS nr
                     LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[nr] AND a.attnum > 0
                     ORDER BY nr) AS key
    ) AS text
    WHERE i.indrelid = %s::regclass
    ORDER BY c.relname
"""
GRANTS = """
    SELECT CASE WHEN acl.grantee <> 0 THEN pg_get_userbyid(acl.grantee) END, part.attname, acl.privilege_type,
           acl.is_grantable
    FROM (SELECT c.relowner, NULL::name AS attname, c.relacl AS acl
          FROM pg_class c
          WHERE c.oid = %(table)s::regclass
          UNION ALL
          SELECT c.relowner, a.attname, a.attacl
          FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          WHERE c.oid = %(table)s::regclass) AS part,
         aclexplode(part.acl) AS acl
    WHERE acl.grantee <> part.relowner
    ORDER BY 1, 2, 3
"""
# Owned by the id (serial, identity), or used by its default alone.
SEQUENCE = """
    SELECT s.relname, format_type(q.seqtypid, NULL), bool_or(d.deptype IN ('a', 'i')), bool_or(d.deptype = 'i')
    FROM pg_attribute a
    LEFT JOIN pg_attrdef def ON def.adrelid = a.attrelid AND def.adnum = a.attnum
    JOIN pg_depend d
      ON (d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
          AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))
      OR (d.classid = 'pg_attrdef'::regclass AND d.objid = def.oid AND d.refclassid = 'pg_class'::regclass
          AND d.deptype = 'n')
    JOIN pg_class s ON s.relkind = 'S' AND s.oid = CASE WHEN d.deptype = 'n' THEN d.refobjid ELSE d.objid END
    JOIN pg_sequence q ON q.seqrelid = s.oid
    WHERE a.attrelid = %s::regclass AND a.attname = 'id'
    GROUP BY s.oid, s.relname, q.seqtypid
"""


def look(conn: Connection, name: str, zone: str) -> PlainTable:
    """What the catalog says of the plain table `name`; in a transaction of its own or of the caller."""
    quoted = Identifier(name).as_string(conn)
    ((place, owner, owned, may_create, tablespace, comment, row_security, rows, in_all, path),) = conn.execute(
        TABLE, [quoted]
    )
    sequence = conn.execute(SEQUENCE, [quoted]).fetchone()
    return PlainTable(
        name=name,
        place=place,
        path=path,
        owner=owner,
        owned=owned,
        may_create=may_create,
        tablespace=tablespace,
        comment=comment,
        row_security=row_security,
        bytes_of_rows=rows,
        bytes_in_all=in_all,
        columns=tuple(Column(*row) for row in conn.execute(COLUMNS, [quoted])),
        constraints=tuple(
            Constraint(name, kind, text, tuple(columns), refers_to, valid, inherited)
            for name, kind, text, columns, refers_to, valid, inherited in conn.execute(CONSTRAINTS, [quoted])
        ),
        indexes=tuple(
            Index(name, text, tuple(key), *flags) for name, text, key, *flags in conn.execute(INDEXES, [quoted])
        ),
        grants=tuple(conn.execute(GRANTS, {"table": quoted}).fetchall()),
        sequence=IdSequence(*sequence) if sequence else None,
        zone=zone,
    )


# --- the rows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Survey:
    """What one reading of all rows found."""

    days: Mapping[date, int]  # rows a UTC day, the oldest first
    no_time: int  # rows whose timestamp is NULL
    endless: int  # rows at infinity
    outside: int  # rows outside of the years 1 to 9999
    no_id: int  # rows whose id is NULL
    largest_id: int | None

    @property
    def rows(self) -> int:
        """All rows that can be migrated."""
        return sum(self.days.values())

    @property
    def span(self) -> list[date]:
        """Every day from the first to the last."""
        if not self.days:
            return []
        first, last = min(self.days), max(self.days)
        return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def survey(conn: Connection, table: PlainTable) -> Survey | None:
    """Count the rows of each day, in one reading of the table: MIN and MAX of the timestamp, and what has none.

    None where that cannot be done; `obstacles` says why.
    """
    if any(_unreadable(conn, table)):
        return None
    days: dict[date, int] = {}
    no_time = endless = outside = no_id = 0
    largest: int | None = None
    query = SQL("""
        SELECT CASE WHEN isfinite(day) THEN day - date '1970-01-01' END, day IS NULL, rows, no_id, largest
        FROM (SELECT ({moment} AT TIME ZONE 'UTC')::date AS day, count(*) AS rows,
                     count(*) FILTER (WHERE id IS NULL) AS no_id, max(id) AS largest
              FROM {table}
              GROUP BY day) AS of_day
        ORDER BY day
    """).format(moment=table.moment, table=Identifier(table.name))
    for number, is_null, rows, rows_without_id, largest_of_day in conn.execute(query):
        no_id += rows_without_id
        if largest_of_day is not None:
            largest = max(largest_of_day, largest or largest_of_day)
        if is_null:
            no_time += rows
        elif number is None:
            endless += rows
        elif not date.min.toordinal() < number + EPOCH.toordinal() < date.max.toordinal():
            outside += rows
        else:
            days[EPOCH + timedelta(days=number)] = rows
    return Survey(days, no_time, endless, outside, no_id, largest)


# --- what stands in the way --------------------------------------------------------------------------------

# Views, rules, triggers, keys of other tables, publications, policies, statistics, inheritance, uses of the row's
# type. Not: its own columns, indexes, constraints, sequence.
DEPENDENTS = """
    SELECT DISTINCT
           CASE WHEN r.oid IS NOT NULL AND v.relkind IN ('v', 'm') THEN 'view'
                WHEN k.oid IS NOT NULL THEN 'foreign key' WHEN t.oid IS NOT NULL THEN 'trigger' ELSE 'other' END,
           CASE WHEN r.oid IS NOT NULL THEN v.oid::regclass::text
                WHEN k.oid IS NOT NULL THEN k.conrelid::regclass::text
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
      AND k.conrelid IS DISTINCT FROM c.oid
      AND d.classid <> 'pg_attrdef'::regclass
      AND NOT coalesce(t.tgisinternal, false)
      AND (d.classid <> 'pg_class'::regclass
           OR (SELECT relkind FROM pg_class own WHERE own.oid = d.objid) NOT IN ('i', 'S'))
    UNION
    SELECT 'other', 'the table that it inherits from, ' || inhparent::regclass, NULL
    FROM pg_inherits WHERE inhrelid = %s::regclass
    ORDER BY 1, 2
"""
IN_THE_WAY = """
    SELECT c.relname
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = ANY(%s)
    ORDER BY c.relname
"""


def obstacles(conn: Connection, table: PlainTable, found: Survey | None) -> list[str]:
    """All that stands in the way of a migration, each with the way out. Without a survey, what the catalog knows."""
    reasons = [
        *_unreadable(conn, table),
        *_rights(table),
        *_shape(table),
        *_dependents(conn, table),
        *_other_tables(conn),
    ]
    reasons += [f"{name} is in the way: rename it" for name in _taken(conn, table, ["logs_old", "logs_new"])]
    if found is not None:
        reasons += [*times(conn, table, found), *_values(conn, table)]
        days = [partitions.partition_name(str(day), *partitions.day_bounds(str(day))) for day in found.span[:MOST_DAYS]]
        reasons += [
            f"{name} is in the way, a table of its own with the name of a partition: rename it"
            for name in _taken(conn, table, days)
        ]
    return reasons


def _taken(conn: Connection, table: PlainTable, names: list[str]) -> list[str]:
    return [name for (name,) in conn.execute(IN_THE_WAY, [table.place, names])]


def _unreadable(conn: Connection, table: PlainTable) -> Iterator[str]:
    for name in ("id", "timestamp"):
        column = table.column(name)
        if column is None:
            yield f"{table.name}.{name}: expected a column, found none; add it and fill it"
        elif column.plain_type not in CONVERTED[OUR_TYPES[name]]:
            yield (
                f"{table.name}.{name}: expected {OUR_TYPES[name]}, found {column.type}: "
                f"ALTER TABLE {table.name} ALTER COLUMN {name} TYPE {OUR_TYPES[name]} USING …"
            )
    ((known,),) = conn.execute("SELECT count(*) FROM pg_timezone_names WHERE name = %s", [table.zone])
    if not table.has_zone and not known:
        yield f"the times have no zone, and the server does not know {table.zone}: set [parser] timezone in the config"


def _rights(table: PlainTable) -> Iterator[str]:
    if not table.owned:
        yield (
            f"only the owner of {table.name} can migrate it: connect as {table.owner}, "
            f"or GRANT {table.owner} TO this role"
        )
    if not table.may_create:
        yield f"GRANT CREATE ON SCHEMA {table.place} to this role: partitions are new tables"
    if table.row_security:
        yield f"row security is on: ALTER TABLE {table.name} DISABLE ROW LEVEL SECURITY, and set it up again afterwards"


def _shape(table: PlainTable) -> Iterator[str]:
    for column in table.columns:
        accepted = CONVERTED.get(OUR_TYPES.get(column.name, ""))
        known = column.name in ("id", "timestamp") or column.new_type == column.type
        if accepted and column.plain_type not in accepted and not known:
            yield (
                f"{table.name}.{column.name}: expected {OUR_TYPES[column.name]}, found {column.type}: "
                f"ALTER TABLE {table.name} ALTER COLUMN {column.name} TYPE {OUR_TYPES[column.name]} USING …"
            )
        if column.identity and column.name != "id":
            yield (
                f"{table.name}.{column.name} is an identity column, and partitions have none before PostgreSQL 17: "
                f"ALTER TABLE {table.name} ALTER COLUMN {column.name} DROP IDENTITY"
            )
    for index in table.indexes:
        is_primary_of_id = index.columns == ("id",) and any(
            constraint.kind == "p" and constraint.columns == ("id",) and constraint.name == index.name
            for constraint in table.constraints
        )
        if index.unique and index.valid and "timestamp" not in index.columns and not is_primary_of_id:
            yield (
                f"the unique index {index.name} has no timestamp, and a partitioned table cannot keep it: "
                f"drop it, or add the timestamp to its columns"
            )
    for constraint in table.constraints:
        if constraint.kind == "x":
            yield (
                f"the exclusion constraint {constraint.name} cannot be kept by a partitioned table: "
                f"ALTER TABLE {table.name} DROP CONSTRAINT {constraint.name}"
            )
        if not constraint.valid:
            yield (
                f"the constraint {constraint.name} is NOT VALID: "
                f"ALTER TABLE {table.name} VALIDATE CONSTRAINT {constraint.name}"
            )
        if constraint.kind == "c" and not constraint.inherited:
            yield (
                f"the constraint {constraint.name} is NO INHERIT, and partitions would not have it: "
                f"make it again without"
            )
    for name in sorted({i.name for i in table.indexes} | {c.name for c in table.constraints}):
        if len(name.encode()) > LONGEST_NAME:
            yield f"the name {name} is longer than {LONGEST_NAME} bytes, and a suffix has to be added: rename it"


def _dependents(conn: Connection, table: PlainTable) -> Iterator[str]:
    for kind, what, name in conn.execute(DEPENDENTS, [table.name, table.name]):
        if kind == "view":
            yield (
                f"the view {what} would follow the rename: drop it, and make it again afterwards "
                f"(its text: SELECT pg_get_viewdef('{what}'))"
            )
        elif kind == "foreign key":
            yield (
                f"a foreign key of {what} points at {table.name}, where ids are not unique any more: "
                f"ALTER TABLE {what} DROP CONSTRAINT {name}"
            )
        elif kind == "trigger":
            yield (
                f"the trigger {name} cannot be carried over: DROP TRIGGER {name} ON {table.name}, "
                f"and make it again afterwards"
            )
        else:
            yield f"{what} uses {table.name} and cannot be carried over: drop it, and make it again afterwards"


def _other_tables(conn: Connection) -> Iterator[str]:
    found = schema.look(conn)
    yield from schema.misfits({name: table for name, table in found.tables.items() if name != "logs"})


def times(conn: Connection, table: PlainTable, found: Survey) -> Iterator[str]:
    """Rows that cannot be migrated for their time or their id, each kind with the way out."""
    name, moment = Identifier(table.name), table.moment
    which = "which: SELECT * FROM {} WHERE {}; give them a time, or delete them"

    def examples(condition: Composable) -> str:
        query = SQL("SELECT id, {moment}::text FROM {table} WHERE {condition} ORDER BY id LIMIT {few}").format(
            moment=moment, table=name, condition=condition, few=Literal(FEW)
        )
        return ", ".join(f"id {id_}: {at}" if at else f"id {id_}" for id_, at in conn.execute(query))

    if found.no_time:
        some = examples(SQL('"timestamp" IS NULL'))
        yield f"{found.no_time} rows have no timestamp ({some}); " + which.format(table.name, '"timestamp" IS NULL')
    if found.endless:
        some = examples(SQL('NOT isfinite("timestamp")'))
        yield f"{found.endless} rows are at infinity ({some}); " + which.format(table.name, 'NOT isfinite("timestamp")')
    if found.outside:
        yield f"{found.outside} rows are outside of the years 1 to 9999: give them a time, or delete them"
    if found.no_id:
        yield f"{found.no_id} rows have no id (id IS NULL): give them one, or delete them"
    if len(found.span) > MOST_DAYS:
        days = list(found.days.items())
        ends = "; ".join(", ".join(f"{day} ({rows} rows)" for day, rows in part) for part in (days[:FEW], days[-FEW:]))
        yield (
            f"the rows span {len(found.span)} days, more than {MOST_DAYS}: each would be a partition. "
            f"The first and the last days: {ends}; correct or delete what is not true"
        )


def _values(conn: Connection, table: PlainTable) -> Iterator[str]:
    """What the new table would refuse: text that is no address, ids of names that are not there."""
    name = Identifier(table.name)
    source = table.column("source_ip")
    if source is not None and source.plain_type not in ("inet", "cidr"):
        try:
            with conn.transaction():
                conn.execute(SQL("SELECT count(source_ip::inet) FROM {}").format(name))
        except errors.DataError as error:
            yield (
                f"{table.name}.source_ip has text that is no address: {database.message(error)}; "
                f"make it NULL, or correct it, where it is none"
            )
    there = schema.look(conn).tables
    for column, referenced in schema.KEYS.items():
        if table.column(column) is None or _has_key(table, column):
            continue
        unknown = (
            SQL("NOT EXISTS (SELECT FROM {} r WHERE r.id = l.{})").format(Identifier(referenced), Identifier(column))
            if referenced in there
            else SQL("true")
        )
        query = SQL(
            "SELECT count(*), min(l.{column}) FROM {table} l WHERE l.{column} IS NOT NULL AND {unknown}"
        ).format(column=Identifier(column), table=name, unknown=unknown)
        ((count, smallest),) = conn.execute(query)
        if count:
            yield (
                f"{count} rows have a {column} that is not in {referenced} (the smallest is {smallest}): "
                f"add those names to {referenced}, or make {column} NULL in these rows"
            )


def _has_key(table: PlainTable, column: str) -> bool:
    """Whether the server has checked the column against the table that we refer to."""
    return any(
        constraint.kind == "f" and constraint.columns == (column,) and constraint.refers_to == schema.KEYS[column]
        for constraint in table.constraints
    )


# --- what depends on it, to be made again ------------------------------------------------------------------


def keys_and_indexes(table: PlainTable, on: str, named: bool) -> Iterator[Composed]:
    """The foreign keys, unique keys and indexes of the old table, and ours where it has none, on the table `on`.

    Under the names that the old ones had, or under names that the server makes. Of the indexes of the old table
    those that were not valid are left out, and its primary key on id: a partitioned table cannot have that.
    """
    yield from keys(table, on, named)
    yield from indexes(table, on, named)


def keys(table: PlainTable, on: str, named: bool) -> Iterator[Composed]:
    """The foreign keys."""
    for constraint in table.constraints:
        if constraint.kind == "f":
            yield add_constraint(constraint, on, named)
    for column in schema.KEYS:
        if not _has_key(table, column):
            yield schema.add_key(on, column)


def indexes(table: PlainTable, on: str, named: bool) -> Iterator[Composed]:
    """The unique keys and the indexes."""
    for constraint in table.constraints:
        if constraint.kind in ("p", "u") and constraint.columns != ("id",):
            yield add_constraint(constraint, on, named)
    own = [index for index in table.indexes if index.valid and not index.of_constraint and index.name != BY_DAY]
    for index in own:
        yield schema.create_index(on, index.definition, index.name if named else None, index.unique)
    for definition in schema.LOGS_INDEXES:
        if definition not in [index.definition for index in own]:
            yield schema.create_index(on, definition)


def add_constraint(constraint: Constraint, on: str, named: bool) -> Composed:
    """DDL for a constraint as the catalog wrote it."""
    name = SQL("CONSTRAINT {} ").format(Identifier(constraint.name)) if named else SQL("")
    return SQL("ALTER TABLE {} ADD {}{}").format(Identifier(on), name, SQL(constraint.definition))
