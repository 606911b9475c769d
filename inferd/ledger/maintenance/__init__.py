"""Maintenance of the ledger's file: backup, restore, retention, doctor."""
