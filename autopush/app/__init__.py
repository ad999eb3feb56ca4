"""A running process: its service, its data directory, its start, its signals and its end."""
