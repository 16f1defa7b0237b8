"""Measure the bytes per row on disk: table and indexes, compared with four plain B-tree indexes.

python benchmarks/space.py [--lines 1000000] [--pg-bin DIR]
"""

from __future__ import annotations

from lines import lines
from stage import arguments, parse_logs, staged, write

TABLES = """
    SELECT 'rows', sum(pg_table_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'logs'::regclass
    UNION ALL
    SELECT 'index ' || substring(pg_get_indexdef(indexrelid) FROM 'USING (.*)'), sum(pg_relation_size(indexrelid))
    FROM pg_index JOIN pg_inherits ON inhrelid = indrelid
    WHERE inhparent = 'logs'::regclass
    GROUP BY 1
    ORDER BY 1 DESC
"""
PLAIN = ('"timestamp"', "user_id", "source_ip", "destination_id")


def main() -> None:
    """Load, measure, add the other indexes, measure again."""
    parser = arguments("Bytes per row on disk.", 1_000_000)
    options = parser.parse_args()
    with staged(options.pg_bin) as stage:
        log = stage.folder / "access.log"
        write(log, lines(options.lines))
        stage.database("space")
        parse_logs(stage.config("space", log))
        print(f"{options.lines:,} rows, {stage.versions}; bytes per row")
        with stage.connect("space") as conn:
            found = conn.execute(TABLES).fetchall()
            for what, size in found:
                print(f"  {what:55} {size / options.lines:7.2f}")
            ours = sum(size for what, size in found if what != "rows")
            for column in PLAIN:
                conn.execute(f"CREATE INDEX plain_{column.strip(chr(34))} ON logs ({column})")
            everything = dict(conn.execute(TABLES).fetchall())
            theirs = sum(everything[f"index btree ({column})"] for column in PLAIN)
        print(f"our three indexes {ours / options.lines:.1f}, four plain B-tree indexes {theirs / options.lines:.1f}")


if __name__ == "__main__":
    main()
