"""The terminal: a thin skin over the API."""
