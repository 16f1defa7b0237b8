"""Steps 1 and 2: rename the old table to `logs_old`, and create the partitioned table that replaces it."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from xraylog.database import ddl, migration_record, schema, session
from xraylog.database.capabilities import Capabilities
from xraylog.database.markers import MigrationMarker
from xraylog.database.session import Connection, Unsuitable
from xraylog.migration import blockers, old_table, recreate, state
from xraylog.migration.old_table import OldTable
from xraylog.migration.state import Migration, State

OLD_SUFFIX = "_old"  # renames the old table's indexes and constraints, so that the new table can have their names


def swap(conn: Connection, zone: str, largest_id: int | None) -> None:
    """Rename the old table and create the new one, in one transaction. Raises Unsuitable if it cannot be migrated."""
    try:
        with state.step(conn, State.PLAIN) as migration:
            state.run_all(conn, lock_statements(migration))
            old = old_table.describe(conn, "logs", zone)
            if reasons := blockers.all_blockers(conn, old, None):
                raise Unsuitable("; ".join(reasons))
            state.run_all(conn, swap_statements(conn, old, largest_id))
    except (errors.ProgrammingError, errors.DataError, errors.NotSupportedError) as error:
        raise Unsuitable(f"the new logs cannot be created: {session.message(error)}; nothing was changed") from error


def lock_statements(migration: Migration) -> Iterator[Composed]:
    """Yield the statements that lock the table before it is renamed.

    The first lock excludes only VACUUM and other DDL. It does not block readers, so it may wait longer.
    """
    table = Identifier(migration.schema, "logs")
    yield state.set_lock_timeout(state.LONG_LOCK_TIMEOUT)
    yield SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(table)
    yield state.set_lock_timeout(state.LOCK_TIMEOUT)
    yield SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table)


def swap_statements(conn: Connection, old: OldTable, largest_id: int | None) -> Iterator[Composed]:
    """Yield the DDL of steps 1 and 2, which follows LOCK TABLE."""
    yield from create_missing_tables(conn, old)
    yield from set_tablespace(old)
    yield SQL("ALTER TABLE logs RENAME TO logs_old").format()
    for name in sorted({index.name for index in old.indexes}):
        yield rename_index(name, name + OLD_SUFFIX)
    for constraint in old.constraints:
        if constraint.name not in {index.name for index in old.indexes}:
            yield rename_constraint(constraint.name, constraint.name + OLD_SUFFIX)
    yield from _move_sequence(old, largest_id)
    yield from create_statements(conn, old, "logs", named=True)
    yield from set_owner(old, "logs")
    yield from _set_sequence_owners(old)
    yield from _comments_and_grants(old)
    yield SQL(migration_record.DROP).format()  # the operator may have ended an earlier migration by hand
    yield from record_state(old, False, old.sequence.type if old.sequence else "bigint")


def record_state(old: OldTable, finished: bool, sequence_type: str) -> Iterator[Composed]:
    """Yield the statements that record the state of the migration, for `state.read_state`."""
    text = MigrationMarker(finished, old.zone, sequence_type).comment
    yield from replace_record(old, text)
    yield SQL("COMMENT ON TABLE logs_old IS {}").format(Literal(text))


def replace_record(old: OldTable, text: str) -> Iterator[Composed]:
    """Yield the statements that replace the text in the table xraylog_migration, which every role may read."""
    table = Identifier(migration_record.TABLE)
    yield SQL(migration_record.CREATE).format()
    yield from set_owner(old, migration_record.TABLE)
    yield SQL("GRANT SELECT ON {} TO PUBLIC").format(table)
    # Without it, a publication of all tables would refuse the DELETE.
    yield SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(table)
    yield SQL("DELETE FROM {}").format(table)
    yield SQL("INSERT INTO {} VALUES ({})").format(table, Literal(text))


def set_tablespace(old: OldTable) -> Iterator[Composed]:
    """Yield the setting that creates new tables in the tablespace of the old one."""
    if old.tablespace is not None:
        yield SQL("SET LOCAL default_tablespace TO {}").format(Identifier(old.tablespace))


def create_missing_tables(conn: Connection, old: OldTable) -> Iterator[Composed]:
    """Yield the DDL of those of our tables that do not exist yet, except logs."""
    for table in schema.inspect(conn).missing:
        if table != "logs":
            yield from ddl.create(table)
            yield from set_owner(old, table)


def create_statements(conn: Connection, old: OldTable, name: str, named: bool) -> Iterator[Composed]:
    """Yield the DDL of the new table `name`, with its constraints, keys and indexes.

    `named`: whether these have the names that they had on the old table, or names that the server chooses.
    """
    yield SQL(schema.NO_OWN_TABLESPACE).format()
    yield _create_logs(old, name)
    for constraint in old.constraints:
        if constraint.kind == "c":
            yield recreate.constraint(constraint, name, named)
    if Capabilities.of(conn).keys_on_partitioned:
        yield from recreate.keys_and_indexes(old, name, named)


def set_owner(old: OldTable, table: str) -> Iterator[Composed]:
    """Yield the statements that give a new table the owner of the old one, and revoke what default privileges grant."""
    for role in old.default_grantees:
        yield SQL("REVOKE ALL ON {} FROM {}").format(Identifier(table), _grantee(role))
    if old.owner != old.role:
        yield SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(table), Identifier(old.owner))


def set_owned_by(sequence: str, table: str, column: str) -> Composed:
    """Return the DDL that makes the column own the sequence, whose name is quoted."""
    return SQL("ALTER SEQUENCE {} OWNED BY {}.{}").format(SQL(sequence), Identifier(table), Identifier(column))


def rename_index(name: str, to: str) -> Composed:
    """Return the DDL that renames an index."""
    return SQL("ALTER INDEX {} RENAME TO {}").format(Identifier(name), Identifier(to))


def rename_constraint(name: str, to: str) -> Composed:
    """Return the DDL that renames a constraint of the old table."""
    return SQL("ALTER TABLE logs_old RENAME CONSTRAINT {} TO {}").format(Identifier(name), Identifier(to))


CREATE_SEQUENCE = "CREATE SEQUENCE logs_id_seq"


def sequence_name(old: OldTable) -> str | None:
    """Return the quoted name of the sequence that gives the new table its ids; None if something else does."""
    if old.sequence is None:
        return "logs_id_seq" if old.needs_sequence else None
    return old.sequence.name


def _move_sequence(old: OldTable, largest_id: int | None) -> Iterator[Composed]:
    """Yield the statements that give the old sequence to the new table.

    The sequence of an identity column cannot be moved: a new one continues its numbers.
    """
    name = sequence_name(old)
    if name is None:
        return
    if old.sequence is None:
        yield SQL(CREATE_SEQUENCE).format()
    elif old.sequence.identity:
        renamed = Identifier(old.sequence.bare_name + OLD_SUFFIX)
        yield SQL("ALTER SEQUENCE {} RENAME TO {}").format(SQL(name), renamed)
        yield SQL("CREATE SEQUENCE {} {}").format(SQL(name), SQL(old.sequence.options))
        yield SQL("SELECT setval({}, last_value, is_called) FROM {}").format(Literal(name), renamed)
    elif old.sequence.type != "bigint":
        yield SQL("ALTER SEQUENCE {} AS bigint").format(SQL(name))
    if largest_id is not None:
        yield advance_sequence(name, largest_id)


def _set_sequence_owners(old: OldTable) -> Iterator[Composed]:
    name = sequence_name(old)
    if name is not None and (old.sequence is None or old.sequence.identity):
        if old.owner != old.role:
            yield SQL("ALTER SEQUENCE {} OWNER TO {}").format(SQL(name), Identifier(old.owner))
        yield set_owned_by(name, "logs", "id")
    elif name is not None and old.sequence is not None and old.sequence.owned:
        yield set_owned_by(name, "logs", "id")
    for sequence, column in old.other_sequences:
        yield set_owned_by(sequence, "logs", column)


def advance_sequence(sequence: str, largest_id: int) -> Composed:
    """Return the statement that moves the sequence past the largest id, unless it is past it already."""
    return SQL(
        "SELECT setval({text}, {id}) FROM {name} WHERE last_value < {id} OR (last_value = {id} AND NOT is_called)"
    ).format(text=Literal(sequence), name=SQL(sequence), id=Literal(largest_id))


def _create_logs(old: OldTable, name: str) -> Composed:
    """Return the DDL of the new table: the old columns in their order, ours as in Schema.md; then the missing ones.

    reject_reason comes directly after action, as in Schema.md, where it takes no room.
    """
    lines: list[Composable] = []
    missing = {
        name: SQL("{} {}").format(Identifier(name), SQL(old_table.OUR_TYPES[name])) for name in old.missing_columns
    }
    for column in old.columns:
        parts = [Identifier(column.name), SQL(column.new_type)]
        if column.collation and column.new_type == column.type:
            parts.append(SQL("COLLATE {}").format(SQL(column.collation)))
        if column.generated:
            parts.append(SQL("GENERATED ALWAYS AS ({}) {}").format(SQL(column.default or ""), SQL(column.generated)))
        elif column.default is not None:
            value = SQL(column.default)
            if column.new_type != column.type and column.name != "id":
                value = old.converted(SQL("({})").format(value), column)  # type: ignore[assignment]
            parts.append(SQL("DEFAULT {}").format(value))
        elif column.name == "id" and (sequence := sequence_name(old)):
            parts.append(SQL("DEFAULT nextval({})").format(Literal(sequence)))
        if column.name in ("id", "timestamp") or (column.not_null and column.name not in schema.MAY_BE_NULL):
            parts.append(SQL("NOT NULL"))
        lines.append(SQL(" ").join(parts))
        if column.name == "action" and ddl.REJECT_REASON in missing:
            lines.append(missing.pop(ddl.REJECT_REASON))
    lines += missing.values()
    return SQL('CREATE TABLE {} (\n    {}\n) PARTITION BY RANGE ("timestamp")').format(
        Identifier(name), SQL(",\n    ").join(lines)
    )


def _comments_and_grants(old: OldTable) -> Iterator[Composed]:
    if old.comment is not None:
        yield SQL("COMMENT ON TABLE logs IS {}").format(Literal(old.comment))
    for column in old.columns:
        if column.comment is not None:
            yield SQL("COMMENT ON COLUMN logs.{} IS {}").format(Identifier(column.name), Literal(column.comment))
    inserts = set()
    for role, column_name, right, may_grant in old.grants:
        if right == "INSERT":
            inserts.add(role)
        yield SQL("GRANT {}{} ON logs TO {}{}").format(
            SQL(right),
            SQL(" ({})").format(Identifier(column_name)) if column_name else SQL(""),
            _grantee(role),
            SQL(" WITH GRANT OPTION" if may_grant else ""),
        )
    sequence = sequence_name(old)
    # To insert, a role needs no right on the sequence of an identity column, but it needs USAGE on that of a default.
    if sequence and (old.sequence is None or old.sequence.identity):
        for role in sorted(inserts, key=str):
            yield SQL("GRANT USAGE ON SEQUENCE {} TO {}").format(SQL(sequence), _grantee(role))


def _grantee(role: str | None) -> Composable:
    return SQL("PUBLIC") if role is None else Identifier(role)
