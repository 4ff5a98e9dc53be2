"""KServe's protocol with Triton's sequences: its meaning through raw calls, and unmodified clients."""
