"""The wire protocols: messages to requests and back, errors to statuses."""
