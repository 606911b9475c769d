"""Wire formats: bytes of requests to structs, and structs to bytes of answers."""
