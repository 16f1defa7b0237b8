"""The file side: reads the bytes of a log, and returns batches of records. Knows no database."""
