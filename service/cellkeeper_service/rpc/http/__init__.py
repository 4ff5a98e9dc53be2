"""JSON over HTTP and WebSockets: the same handlers as gRPC's, for browsers, notebooks and scripts."""
