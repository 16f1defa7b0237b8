"""Turn a plain `logs` table into a partitioned one, step by step."""
