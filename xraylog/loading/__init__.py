"""Store batches in `logs`, on one of three load paths."""
