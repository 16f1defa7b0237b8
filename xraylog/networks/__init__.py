"""Files that say which country and which provider a network has: read them, and load them into their table."""
