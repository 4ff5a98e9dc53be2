"""Who may do what, and how much: rights, tokens, quotas. Plain Python, without gRPC or an event loop."""
