"""Where records live: memory (tests), SQLite (embedded), Redis. One contract, in domain/store.py."""
