"""The stores: memory (for tests), SQLite (embedded) and Redis. domain/store.py has their common contract."""
