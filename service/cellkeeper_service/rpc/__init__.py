"""The wire: protobuf to domain and back, errors to status."""
