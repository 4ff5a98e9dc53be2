"""The SQLite store: records in one file."""
