"""Steps a second and milliseconds a step, beside peers and the limits of the machine, in one run."""
