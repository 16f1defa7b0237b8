"""--check for limits of the server that a run cannot change: timeouts, transactions, standbys that are gone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from xraylog.commands.finding import Finding
from xraylog.database import session
from xraylog.database.session import Connection

STATEMENT_TIMEOUT = """
    SELECT setting::integer, source FROM pg_settings
    WHERE name = 'statement_timeout' AND setting::integer BETWEEN 1 AND %s
"""
SHORTEST_MS = 250  # a server with a full processor takes this long for a statement of a few ms
AGE = """
    SELECT age(datfrozenxid), quote_ident(datname) FROM pg_database
    WHERE datname = current_database() AND age(datfrozenxid) > %s
"""
OLD_TRANSACTIONS = "SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start LIMIT 5"
OLDEST = 1_500_000_000  # 2,000,000,000: the server refuses rows; autovacuum begins at 200,000,000
# A role that may not read statistics sees no standby's state: it cannot tell.
STANDBYS = """
    SELECT s.setting, s.source,
           (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))
    FROM pg_settings s
    WHERE s.name = 'synchronous_standby_names' AND trim(s.setting) <> ''
      AND current_setting('synchronous_commit') <> 'local' AND pg_has_role('pg_read_all_stats', 'USAGE')
"""
NEEDED = re.compile(r"\s*(?:FIRST|ANY)?\s*(\d+)\s*\(", re.IGNORECASE)  # of a list without a number, one


def findings(conn: Connection) -> Iterator[Finding]:
    """Yield what would end or block the statements of a run."""
    for timeout, source in conn.execute(STATEMENT_TIMEOUT, [SHORTEST_MS]):
        reset = session.to_reset(conn, "statement_timeout", "0", source, first="SET statement_timeout = 0; ")
        yield "timeout", f"statement_timeout is {timeout} ms ({source}), too short for the first statement", reset
    for age, database in conn.execute(AGE, [OLDEST]):
        to_do = f"as a superuser, in database {database}: VACUUM (FREEZE); what keeps it from that: {OLD_TRANSACTIONS}"
        yield "transactions", f"{age:,} of 2,000,000,000 are used up: then the server refuses rows", to_do
    for names, source, connected in conn.execute(STANDBYS):
        needed = NEEDED.match(names)
        if connected < (int(needed[1]) if needed else 1):
            reset = session.to_reset(conn, "synchronous_standby_names", "''", source)
            to_do = f"start it, or, as a superuser of PostgreSQL: {reset}"
            yield "standbys", f"each COMMIT waits for a standby of synchronous_standby_names = {names}", to_do
