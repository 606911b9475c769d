"""KV memory: cells, the prefix cache and their accounting."""
