"""Keras: imports a file or a model, read layer by layer or traced."""
