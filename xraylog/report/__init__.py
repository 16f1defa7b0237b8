"""The page that answers: `findings` reads the database, `charts` draws, `page` makes one HTML file of both."""
