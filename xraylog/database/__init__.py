"""The database side: sessions, tables, partitions, names and positions. Knows no log syntax and opens no file."""
