"""The path that every request takes, from its arrival to its result."""
