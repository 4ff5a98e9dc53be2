"""Steps a second, beside the limits of the machine in the same run."""
