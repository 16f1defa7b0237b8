"""Batches into `logs`, on one of three paths."""
