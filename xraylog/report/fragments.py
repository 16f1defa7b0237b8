"""Pieces of SQL that several queries share. Their parameters are in `Session.values`."""

from __future__ import annotations

from datetime import timedelta

from psycopg.sql import SQL, Composed, Literal

from xraylog.database.capabilities import Capabilities

# `node` is null for all nodes, and then also matches rows without one.
WINDOW = SQL("""l."timestamp" >= %(since)s AND l."timestamp" < %(until)s
            AND (%(node)s::integer IS NULL OR l.node_id = %(node)s)""")

# The same, and the period before.
BOTH = SQL("""l."timestamp" >= %(before)s AND l."timestamp" < %(until)s
            AND (%(node)s::integer IS NULL OR l.node_id = %(node)s)""")

# Whether a row shows a client that was let in, like model.NOT_LET_IN; null, in a table made by hand, does. Only these
# rows count for users, destinations, tags and ports. NOT IN would be slower: it loops over an array.
LET_IN = SQL("l.action IS DISTINCT FROM 'rejected' AND l.action IS DISTINCT FROM 'api'")

# The address of a client, like `client_address` in answers.sql: an IPv4-mapped address becomes IPv4, and addresses that
# stand for a unix socket or a proxy become NULL. Use it after grouping, because it takes as long as reading a row.
CLIENT = SQL("""CASE
                WHEN l.source_ip <<= '::ffff:0.0.0.0/104' OR l.source_ip <<= '::ffff:127.0.0.0/104' THEN NULL
                WHEN l.source_ip <<= '::ffff:0.0.0.0/96'
                THEN set_masklen('0.0.0.0'::inet + (l.source_ip - '::ffff:0.0.0.0'::inet), masklen(l.source_ip) - 96)
                WHEN l.source_ip <<= '0.0.0.0/8' OR l.source_ip <<= '127.0.0.0/8' OR l.source_ip <<= '::/16' THEN NULL
                ELSE l.source_ip END""")

# The address of a client as the page shows it: masked to a network if the page is masked. The first 48 bits of a 6to4
# address contain the whole IPv4 address.
SHOWN = SQL("""network(set_masklen(l.source_ip, least(masklen(l.source_ip), CASE
                WHEN family(l.source_ip) = 4 THEN %(bits_4)s
                WHEN l.source_ip <<= '2002::/16' THEN least(%(bits_6)s, 16 + %(bits_4)s + (%(bits_4)s / 32) * 80)
                ELSE %(bits_6)s END)))""")


def clock_slot(server: Capabilities, length: timedelta) -> Composed:
    """Return SQL for the start of the slot, shorter than a day, that a row is in."""
    if server.date_bin:  # one call per row instead of four
        text = SQL("""date_bin({length}, l."timestamp", '1970-01-01 00:00+00')""")
    else:
        text = SQL("""to_timestamp(floor(date_part('epoch', l."timestamp") / {seconds}) * {seconds})""")
    return text.format(length=Literal(length), seconds=Literal(int(length.total_seconds())))
