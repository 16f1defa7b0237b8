"""A plain `logs` table becomes a partitioned one, step by step."""
