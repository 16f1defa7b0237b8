"""One run: lines of logs into the database, or into the offline buffer while it is away."""
