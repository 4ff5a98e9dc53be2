"""Measures steps a second and milliseconds a step, compared with peers and the machine's limits, in one run."""
