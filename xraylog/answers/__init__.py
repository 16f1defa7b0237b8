"""The questions as SQL: one function each for psql, and its SELECT for ask_logs.py and the page."""
