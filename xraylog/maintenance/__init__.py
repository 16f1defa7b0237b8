"""Maintain the database: drop what has expired, remove unused names, replay unparsed lines."""
