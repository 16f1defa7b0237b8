"""The HTML page: `collect` reads the database, `run_history` the files of the runs, `charts` draws, `page` renders."""
