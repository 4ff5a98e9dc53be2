"""Searches for the unexpected: histories, faults, hostile input and load."""
