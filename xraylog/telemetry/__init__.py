"""Our own log, statistics and metrics."""
