"""What is written about runs: our own log, statistics and metrics."""
