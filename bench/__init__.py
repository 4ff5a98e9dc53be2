"""Measures steps per second and milliseconds per step, compared with peers and the machine's limits, in one run."""
