"""The file side: bytes of a log in, batches of records out. Knows no database."""
