"""Promises of the whole service, tested on real server processes under random work."""
