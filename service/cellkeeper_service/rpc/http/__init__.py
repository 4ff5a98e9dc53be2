"""JSON over HTTP and WebSockets, for browsers, notebooks and scripts. The handlers are gRPC's."""
