"""What is written about each run: our own log, statistics and metrics."""
