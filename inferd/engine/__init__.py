"""The engine: token ids in, token ids and text out. No JSON, no HTTP, no money; who asks is an opaque `tenant`."""
