"""The nouns every layer shares: plain Python and numpy, no I/O, no framework."""
