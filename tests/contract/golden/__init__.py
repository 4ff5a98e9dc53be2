"""The bytes on the wire and in the stores, kept as files: see test_golden.py."""
