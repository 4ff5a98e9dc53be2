"""Histories, faults, hostile input and load: what looks for the unexpected."""
