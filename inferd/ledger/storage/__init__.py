"""The SQLite file: schema, connections, group commit and its write-ahead log."""
