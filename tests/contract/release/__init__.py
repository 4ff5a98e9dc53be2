"""A release: the built files, installed as a user does it and served from there."""
