"""Batches (BILLING R23): their lines read, validated, run in idle capacity, kept, and delivered exactly once."""
