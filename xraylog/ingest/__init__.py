"""One run: lines of logs go into the database, or into the offline buffer while it is unavailable."""
