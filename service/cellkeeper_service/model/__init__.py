"""Model bundles: folders with config.json and model.safetensors, read strictly and written atomically."""
