"""What tests, verification and benchmarks share."""
