"""Kernels for tests: one applies a point-wise function, one multiplies two numbers."""

import triton
import triton.language as tl
from cellkeeper_service.engine.cuda.kernels import pointwise


@triton.jit
def apply(source, out, size, FUNCTION: tl.constexpr, N: tl.constexpr):
    block = tl.program_id(0) * N + tl.arange(0, N)
    x = tl.load(source + block, mask=block < size, other=0.0)
    if FUNCTION == "exp":
        x = pointwise.exp(x)
    elif FUNCTION == "expm1":
        x = pointwise.expm1(x)
    elif FUNCTION == "sinh":
        x = pointwise.sinh(x)
    else:
        x = pointwise.activation(x, FUNCTION)
    tl.store(out + block, x, mask=block < size)


@triton.jit
def product(factors, out):
    tl.store(out, tl.load(factors) * tl.load(factors + 1))
