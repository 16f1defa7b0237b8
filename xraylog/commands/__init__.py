"""The options of parse_logs.py that are not a run: --check, --dry-run, --make-partitions, --replay-rejected.

They are imported where they are called: a run needs none of them, and importing them would take a tenth of its start
(benchmarks/start.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xraylog import cli
from xraylog.cli import Exit, Options
from xraylog.config import Config


def run(options: Options, cfg: Config, paths: Sequence[Path]) -> Exit:
    """Do what the options ask for; return the exit status."""
    from xraylog.commands import check, dry_run, maintain

    cli.escape_unprintable()
    if options.check:
        return Exit.OPERATOR if check.report(cfg, paths) else Exit.DONE
    if options.dry_run:
        return Exit.OPERATOR if dry_run.report(cfg, paths, options.keep, options.again) else Exit.DONE
    if options.replay_rejected:
        return maintain.replay_rejected(cfg)
    if options.make_partitions is not None:
        return maintain.make_partitions(cfg, options.make_partitions)
    raise NotImplementedError(f"expected an option with a command, found {options}")


def drop_expired(cfg: Config) -> Exit:
    """Drop the days that [retention] no longer keeps; return the exit status."""
    from xraylog.commands import maintain

    return maintain.drop_old(cfg)
