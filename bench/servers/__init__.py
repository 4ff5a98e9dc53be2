"""The servers of the bench's own: the echo and the naive service."""
