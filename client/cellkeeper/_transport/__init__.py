"""Connections to servers: streams, frames, calls, and the choice of a server for each session."""
