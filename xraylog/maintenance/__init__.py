"""What keeps the database in shape: retention, unused names, rejected lines read again."""
