"""Model bundles: a folder with config.json and model.safetensors, read strictly and written whole."""
