"""Requests that nobody thought of, against the real server: `make fuzz`."""
