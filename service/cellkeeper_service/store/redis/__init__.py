"""Records in Redis: on one server, behind Sentinel, or on a Redis Cluster."""
