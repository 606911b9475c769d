"""Reports: usage, listings, the export and the JSON of rows."""
