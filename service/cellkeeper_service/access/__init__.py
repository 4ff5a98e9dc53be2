"""Who may do what, and how much of it: rights, tokens, quotas. Plain Python: nothing of gRPC, no event loop."""
