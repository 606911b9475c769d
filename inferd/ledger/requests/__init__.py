"""Requests: holds, their settlement, prices and usage rows."""
