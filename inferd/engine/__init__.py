"""The engine: token ids in, token ids and text out. No JSON, no HTTP, no money; the caller is an opaque `tenant`."""
