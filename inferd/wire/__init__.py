"""Wire formats of the HTTP APIs: request bodies to checked structs, and structs to response bodies."""
