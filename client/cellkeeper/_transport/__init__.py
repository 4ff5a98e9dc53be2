"""Connections to servers: streams, frames, calls, and which server a session uses."""
