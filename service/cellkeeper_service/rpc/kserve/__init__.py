"""The KServe v2 inference protocol with Triton's sequence extension, on the same core as Cellkeeper's own service."""
