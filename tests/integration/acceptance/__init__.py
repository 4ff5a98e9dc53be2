"""Promises of the whole service, kept by real server processes under random work."""
