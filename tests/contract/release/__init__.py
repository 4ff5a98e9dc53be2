"""What a release consists of: the files that are built, installed as a user installs them, and served from there."""
