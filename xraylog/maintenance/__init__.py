"""What keeps the database in shape: retention, unused names, unparsed lines read again."""
