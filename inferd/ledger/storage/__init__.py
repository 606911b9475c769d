"""The ledger's SQLite file: data folder, schema, connections, group commit and write-ahead log."""
