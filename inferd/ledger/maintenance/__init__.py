"""Maintenance of the file: backup, restore, retention, doctor."""
