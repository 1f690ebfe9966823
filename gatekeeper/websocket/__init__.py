"""WebSocket (RFC 6455): its frames, and one end of a connection that speaks them."""
