"""Measure how many bytes the column reject_reason adds to a row, by its place in the table and its value for "none".

python benchmarks/row_width.py [--lines 100000] [--pg-bin DIR]
"""

from __future__ import annotations

from stage import arguments, staged

BEGIN = 'id bigint, "timestamp" timestamptz, source_ip inet, source_port integer, action text'
NUMBERS = (
    "protocol_id",
    "destination_id",
    "destination_port",
    "inbound_tag_id",
    "outbound_tag_id",
    "user_id",
    "node_id",
)
END = ", ".join(f"{name} integer" for name in NUMBERS)
TABLES = {  # columns, and what an accepted row has as its reason
    "no such column": (f"{BEGIN}, {END}", None),
    "'' after action": (f"{BEGIN}, reject_reason text, {END}", "''"),
    "'' as the last column": (f"{BEGIN}, {END}, reject_reason text", "''"),
    "null as the last column": (f"{BEGIN}, {END}, reject_reason text", "NULL"),
}
ROWS = {  # address, action, the numbers
    "accepted, IPv4": ("203.0.113.7", "accepted", "1, 2, 443, 3, 4, 5, 6"),
    "accepted, IPv6": ("2001:db8::7", "accepted", "1, 2, 443, 3, 4, 5, 6"),
    "accepted, IPv4, no user": ("203.0.113.7", "accepted", "1, 2, 443, 3, 4, NULL, 6"),
    "rejected, invalid user": ("203.0.113.7", "rejected", "NULL, NULL, NULL, NULL, NULL, NULL, 6"),
}


def main() -> None:
    """Fill one table after the other."""
    options = arguments("Bytes of a row with and without its reason.", 100_000).parse_args()
    with staged(options.pg_bin) as stage:
        stage.database("width")
        print(f"{options.lines:,} rows, {stage.versions}; bytes per row")
        with stage.connect("width") as conn:
            for row, (address, action, numbers) in ROWS.items():
                for table, (columns, reason) in TABLES.items():
                    if reason == "''" and action == "rejected":
                        reason = "'invalid user'"  # noqa: PLW2901  # what such a row has
                    names = f'id, "timestamp", source_ip, source_port, action, {", ".join(NUMBERS)}'
                    values = f"n, now(), '{address}'::inet, 50000, '{action}', {numbers}"
                    if reason:
                        names, values = f"{names}, reject_reason", f"{values}, {reason}"
                    conn.execute("DROP TABLE IF EXISTS width")
                    conn.execute(f"CREATE TABLE width ({columns})")
                    conn.execute(
                        f"INSERT INTO width ({names}) SELECT {values} FROM generate_series(1, {options.lines}) n"
                    )
                    ((size,),) = conn.execute("SELECT pg_relation_size('width')").fetchall()
                    print(f"  {row:26} {table:26} {size / options.lines:7.1f}")


if __name__ == "__main__":
    main()
