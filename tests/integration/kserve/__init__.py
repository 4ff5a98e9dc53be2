"""KServe's protocol with Triton's sequences: raw calls for what it means, and unmodified clients."""
