"""One session in its client: positions, steps, retries and replays. Nothing here knows gRPC."""
