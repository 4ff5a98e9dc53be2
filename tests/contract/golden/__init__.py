"""What goes over the wire and what lies in the stores, byte by byte, as files: see test_golden.py."""
