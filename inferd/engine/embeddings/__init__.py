"""Embedding models: jobs, batches and pooling."""
