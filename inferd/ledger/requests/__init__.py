"""Requests: holds, their prices and the usage rows that settle them."""
