"""The commands of the program `cellkeeper`."""
