"""parse_logs.py's options that are not a run: --check, --dry-run, --make-partitions, --replay-rejected."""
