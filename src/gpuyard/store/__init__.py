"""Tables, migrations and queries: SQLite by default, PostgreSQL by URL, one SQL text for both."""
