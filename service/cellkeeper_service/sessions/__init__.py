"""Records, hot slots, and the decision table: the heart of the service."""
