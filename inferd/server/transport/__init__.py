"""HTTP/1.1 over sockets: connections, bodies, uploads."""
