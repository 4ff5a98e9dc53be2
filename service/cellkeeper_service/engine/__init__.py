"""What computes: the only imports of torch and onnxruntime. `load_engine` chooses, tests and warms one up."""
