"""Batches: rows of files and batches, and their progress."""
