"""Describe the plain `logs` table as the catalog has it. Changes nothing; `swap` creates the table that replaces it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Identifier, Literal

from xraylog.database import ddl
from xraylog.database.session import Connection

DAY_INDEX = "logs_old_by_day"  # our own index on the old table, created if no other index finds the rows of a day

# By type of our columns: the types that such a column may have in an old table, from which it is converted. Any type
# can become text.
CONVERTIBLE: Mapping[str, tuple[str, ...]] = {
    "bigint": ("smallint", "integer", "bigint"),
    "integer": ("smallint", "integer"),
    "timestamp with time zone": ("timestamp with time zone", "timestamp without time zone"),
    "inet": ("inet", "cidr", "text", "character varying", "character"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the old table."""

    name: str
    type: str  # with its length, as in character varying(64)
    plain_type: str  # without its length
    not_null: bool
    default: str | None
    collation: str | None  # quoted; None if it is the default of the type
    identity: bool
    generated: str | None  # STORED or, from PostgreSQL 18 on, VIRTUAL
    comment: str | None

    @property
    def new_type(self) -> str:
        """The type in the new table: that of Schema.md for our columns, the same type for others."""
        wanted = OUR_TYPES.get(self.name)
        if wanted is None or (wanted == "integer" and self.plain_type == "bigint"):
            return self.type  # values may be too large for an integer
        return wanted

    @property
    def changes_meaning(self) -> bool:
        """Return whether its values change their type and meaning: text to an address, a time to one with a zone."""
        return self.new_type != self.type and self.name in ("timestamp", "source_ip")


OUR_TYPES = {**ddl.COLUMNS["logs"], "id": "bigint", "timestamp": "timestamp with time zone"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint of the old table. From PostgreSQL 18 on, NOT NULL is one, too."""

    name: str
    kind: str  # pg_constraint.contype: p, u, c, f, x, n
    definition: str
    columns: tuple[str, ...]
    refers_to: str | None  # the table of a foreign key, if it is found without its schema
    valid: bool
    inherited: bool  # False: NO INHERIT
    enforced: bool


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the old table."""

    name: str
    definition: str  # after USING
    columns: tuple[str | None, ...]  # of the key; None stands for an expression
    unique: bool
    valid: bool
    of_constraint: bool
    partial: bool


@dataclass(frozen=True, slots=True)
class IdSequence:
    """The sequence that gives the ids."""

    name: str  # quoted, with its schema if needed
    bare_name: str  # neither quoted nor with its schema
    type: str
    owned: bool  # by the column id
    identity: bool  # id is an identity column
    increment: int
    maximum: int
    options: str  # for CREATE SEQUENCE


@dataclass(frozen=True, slots=True)
class OldTable:
    """The old table as the catalog has it."""

    name: str  # logs, or logs_old
    schema: str
    search_path: str  # begins with that schema
    owner: str
    owned: bool  # this role is the owner, or a member of it
    role: str  # the current one
    may_create: bool  # this role may create tables in that schema
    tablespace: str | None
    comment: str | None
    row_security: bool
    total_bytes: int
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...]
    indexes: tuple[Index, ...]
    default_grantees: tuple[str | None, ...]  # roles to which default privileges grant something on new tables
    not_carried_over: tuple[str, ...]  # what it has, and the new table will not have
    other_sequences: tuple[tuple[str, str], ...]  # owned by other columns than id: sequence, column
    grants: tuple[tuple[str | None, str | None, str, bool], ...]  # role (None: PUBLIC), column, right, GRANT OPTION
    sequence: IdSequence | None
    zone: str  # the time zone in which times without a zone are read

    def column(self, name: str) -> Column | None:
        """Return the column of that name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)

    def has_key(self, column: str) -> bool:
        """Return whether the column has our foreign key, so that its values are known to be in the other table."""
        return any(
            constraint.kind == "f" and constraint.columns == (column,) and constraint.refers_to == ddl.KEYS[column]
            for constraint in self.constraints
        )

    @property
    def has_zone(self) -> bool:
        """Return whether its times have a zone."""
        column = self.column("timestamp")
        return column is None or column.plain_type == "timestamp with time zone"

    @property
    def utc_timestamp(self) -> Composable:
        """SQL for a row's time, with a zone."""
        name = Identifier("timestamp")
        return name if self.has_zone else SQL("({} AT TIME ZONE {})").format(name, Literal(self.zone))

    def select_expression(self, column: Column) -> Composable:
        """Return SQL for a column, with the type that it has in the new table."""
        if column.name == "timestamp":
            return self.utc_timestamp
        return self.converted(Identifier(column.name), column)

    def converted(self, value: Composable, column: Column) -> Composable:
        """Return SQL that converts a value from the old type of the column to the new one."""
        if column.new_type == column.type:
            return value
        if column.name == "timestamp":
            return value if self.has_zone else SQL("({} AT TIME ZONE {})").format(value, Literal(self.zone))
        through_text = "::text" if column.new_type == "inet" and column.plain_type not in ("inet", "cidr") else ""
        return SQL("{}{}::{}").format(value, SQL(through_text), SQL(column.new_type))

    @property
    def needs_sequence(self) -> bool:
        """Return whether the new table needs a sequence of its own: id has neither a sequence nor another default."""
        id_ = self.column("id")
        return self.sequence is None and (id_ is None or id_.default is None)

    @property
    def missing_columns(self) -> list[str]:
        """Our columns that the old table does not have."""
        return [name for name in OUR_TYPES if self.column(name) is None]


TABLE = """
    SELECT n.nspname, pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'),
           current_user, has_schema_privilege(n.oid, 'CREATE'), t.spcname,
           obj_description(c.oid, 'pg_class'), c.relrowsecurity,
           pg_total_relation_size(c.oid),
           (SELECT string_agg(quote_ident(name), ', ' ORDER BY name <> n.nspname, nr)
            FROM unnest(current_schemas(false)) WITH ORDINALITY AS path (name, nr))
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
    WHERE c.oid = %s::regclass
"""
# attgenerated exists from PostgreSQL 12 on.
COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, NULL), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid),
           (SELECT format('%%I.%%I', n.nspname, c.collname)
            FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
            WHERE c.oid = a.attcollation AND a.attcollation <> t.typcollation),
           a.attidentity <> '',
           CASE to_jsonb(a) ->> 'attgenerated' WHEN 's' THEN 'STORED' WHEN 'v' THEN 'VIRTUAL' END,
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
           k.convalidated, NOT k.connoinherit, coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
    FROM pg_constraint k
    WHERE k.conrelid = %s::regclass AND k.contype IN ('p', 'u', 'c', 'f', 'x', 'n')
    ORDER BY k.contype, k.conname
"""
# indnkeyatts exists from PostgreSQL 11 on; before, every column belongs to the key.
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
NOT_CARRIED_OVER = """
    SELECT 'the setting ' || option FROM pg_class c, unnest(c.reloptions) AS option WHERE c.oid = %(table)s::regclass
    UNION ALL
    SELECT 'that it is unlogged' FROM pg_class WHERE oid = %(table)s::regclass AND relpersistence = 'u'
    UNION ALL
    SELECT 'the comment on ' || pg_describe_object(d.classoid, d.objoid, 0)
    FROM pg_description d
    WHERE d.objsubid = 0
      AND (d.classoid = 'pg_class'::regclass AND d.objoid IN (SELECT indexrelid FROM pg_index
                                                              WHERE indrelid = %(table)s::regclass)
           OR d.classoid = 'pg_constraint'::regclass AND d.objoid IN (SELECT oid FROM pg_constraint
                                                                      WHERE conrelid = %(table)s::regclass))
    UNION ALL
    SELECT 'its replica identity' FROM pg_class WHERE oid = %(table)s::regclass AND relreplident <> 'd'
    UNION ALL
    SELECT 'the primary key on id' FROM pg_constraint
    WHERE conrelid = %(table)s::regclass AND contype = 'p' AND pg_get_constraintdef(oid) = 'PRIMARY KEY (id)'
    UNION ALL
    SELECT 'the index ' || indexrelid::regclass || ', because it is not valid' FROM pg_index
    WHERE indrelid = %(table)s::regclass AND NOT indisvalid
    UNION ALL
    SELECT format('%%s of column %%I', setting, a.attname)
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    CROSS JOIN to_jsonb(a) AS j
    CROSS JOIN LATERAL (VALUES
        ('the STORAGE', a.attstorage <> t.typstorage),
        ('the STATISTICS target', (j ->> 'attstattarget')::int >= 0),  -- the default: -1, or NULL from 17 on
        ('the COMPRESSION', j ->> 'attcompression' <> ''),  -- from 14 on
        ('the options', a.attoptions IS NOT NULL)
    ) AS s (setting, is_set)
    WHERE a.attrelid = %(table)s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND s.is_set
"""
OTHER_SEQUENCES = """
    SELECT s.oid::regclass::text, a.attname
    FROM pg_depend d
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attname <> 'id'
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
      AND d.refobjid = %s::regclass
    ORDER BY 1
"""
# A sequence that id owns (serial, identity), or that only its default uses.
SEQUENCE = """
    WITH used AS (
        SELECT CASE WHEN d.deptype = 'n' THEN d.refobjid ELSE d.objid END AS oid,
               bool_or(d.deptype IN ('a', 'i')) AS owned, bool_or(d.deptype = 'i') AS identity
        FROM pg_attribute a
        LEFT JOIN pg_attrdef def ON def.adrelid = a.attrelid AND def.adnum = a.attnum
        JOIN pg_depend d
          ON (d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
              AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))
          OR (d.classid = 'pg_attrdef'::regclass AND d.objid = def.oid AND d.refclassid = 'pg_class'::regclass
              AND d.deptype = 'n')
        WHERE a.attrelid = %s::regclass AND a.attname = 'id'
        GROUP BY 1
    )
    SELECT s.oid::regclass::text, s.relname, format_type(q.seqtypid, NULL), used.owned, used.identity,
           q.seqincrement, q.seqmax,
           format('INCREMENT %%s MINVALUE %%s MAXVALUE %%s START %%s CACHE %%s %%s', q.seqincrement, q.seqmin, q.seqmax,
                  q.seqstart, q.seqcache, CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
    FROM used
    JOIN pg_class s ON s.oid = used.oid AND s.relkind = 'S'
    JOIN pg_sequence q ON q.seqrelid = s.oid
    ORDER BY used.owned DESC
"""
DEFAULT_GRANTS = """
    SELECT DISTINCT CASE WHEN acl.grantee <> 0 THEN pg_get_userbyid(acl.grantee) END
    FROM pg_default_acl d, aclexplode(d.defaclacl) AS acl
    WHERE d.defaclobjtype = 'r' AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
      AND (d.defaclnamespace = 0 OR d.defaclnamespace = (SELECT relnamespace FROM pg_class WHERE oid = %s::regclass))
      AND acl.grantee <> d.defaclrole
    ORDER BY 1
"""


def describe(conn: Connection, name: str, zone: str) -> OldTable:
    """Return the plain table `name` as the catalog has it. Call it in a transaction."""
    quoted = Identifier(name).as_string(conn)
    ((schema_name, owner, owned, role, may_create, tablespace, comment, row_security, total, search_path),) = (
        conn.execute(TABLE, [quoted])
    )
    sequence = conn.execute(SEQUENCE, [quoted]).fetchone()
    return OldTable(
        name=name,
        schema=schema_name,
        search_path=search_path,
        owner=owner,
        owned=owned,
        role=role,
        may_create=may_create,
        tablespace=tablespace,
        comment=comment,
        row_security=row_security,
        total_bytes=total,
        columns=tuple(Column(*row) for row in conn.execute(COLUMNS, [quoted])),
        constraints=tuple(
            Constraint(name, kind, text, tuple(columns), refers_to, *flags)
            for name, kind, text, columns, refers_to, *flags in conn.execute(CONSTRAINTS, [quoted])
        ),
        indexes=tuple(
            Index(name, text, tuple(key), *flags) for name, text, key, *flags in conn.execute(INDEXES, [quoted])
        ),
        default_grantees=tuple(role for (role,) in conn.execute(DEFAULT_GRANTS, [quoted])),
        not_carried_over=tuple(what for (what,) in conn.execute(NOT_CARRIED_OVER, {"table": quoted})),
        other_sequences=tuple(conn.execute(OTHER_SEQUENCES, [quoted]).fetchall()),
        grants=tuple(conn.execute(GRANTS, {"table": quoted}).fetchall()),
        sequence=IdSequence(*sequence) if sequence else None,
        zone=zone,
    )
