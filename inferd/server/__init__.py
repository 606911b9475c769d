"""HTTP server: transport, middleware, endpoints and admin API. No lower layer imports Starlette."""
