"""The client's side of a session: positions, steps, retries and replays. Nothing here depends on gRPC."""
