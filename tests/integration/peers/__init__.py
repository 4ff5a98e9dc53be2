"""The same requests to a real Triton server and to this one: `make triton-cases` writes docs/triton-cases.md."""
