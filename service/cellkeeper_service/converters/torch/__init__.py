"""PyTorch: imports a module, its weights or an exported program, read layer by layer or traced."""
