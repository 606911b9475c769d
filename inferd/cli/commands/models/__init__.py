"""Commands for models and batches."""
