"""Ticks: what runs when, on which thread."""
