"""The engine for CUDA devices: the states stay in device memory, and Triton kernels advance them."""
