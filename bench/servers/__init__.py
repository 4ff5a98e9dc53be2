"""The bench's own servers: the echo and the naive service."""
