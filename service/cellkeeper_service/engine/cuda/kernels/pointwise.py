"""Functions of one float32 value.

On a device, tl.exp is ex2.approx(x * log2(e)), which is off by up to 80 ulp for large |x|, and Triton's interpreter
lacks the functions of libdevice. The forms here are within 3 ulp of float64 over the whole range, and are the same
arithmetic in both places except for the device's fused multiply-adds. NaN gives NaN.

Divisions use tl.div_rn: on a device, `/` is div.full, which is off by up to 2 ulp; tanh and sigmoid would be off by 5
and could exceed 1.
"""

import triton
import triton.language as tl


@triton.jit
def _power_of_two(n):
    """Returns 2 ** n as two factors, for int32 n in -252..254: products with both reach denormals and the maximum."""
    half = n >> 1
    first = ((half + 127) << 23).to(tl.float32, bitcast=True)
    second = ((n - half + 127) << 23).to(tl.float32, bitcast=True)
    return first, second


@triton.jit
def _reduced(x):
    """Returns (n, e ** r - 1) with x = n ln 2 + r and |r| <= 0.35, for |x| < 128: Cody and Waite's reduction."""
    n = tl.floor(x * 1.44269504088896341 + 0.5)  # a device's floor takes denormals for 0, but the sum is none
    r = x - n * 0.693359375  # has 9 bits, so the product is exact
    r = r - n * -2.12194440e-4
    p = 1.9875691500e-4
    p = p * r + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    return n.to(tl.int32), p * r * r + r


@triton.jit
def exp(x):
    """Returns e ** x; 0 below -104, infinity from 88.73 on."""
    inside = (x > -104.0) & (x < 89.0)
    n, p = _reduced(tl.where(inside, x, 0.0))
    first, second = _power_of_two(n)
    value = (1.0 + p) * first * second
    outside = tl.where(x > 0.0, float("inf"), tl.where(x < 0.0, 0.0, x))
    return tl.where(inside, value, outside)


@triton.jit
def _expm1_near(x):
    """Returns e ** x - 1 for |x| <= 21, with full relative accuracy around 0."""
    n, p = _reduced(x)
    first, second = _power_of_two(n)
    power = first * second
    return power * p + (power - 1.0)


@triton.jit
def expm1(x):
    near = tl.abs(x) <= 20.0
    return tl.where(near, _expm1_near(tl.where(near, x, 0.0)), exp(x) - 1.0)


@triton.jit
def tanh(x):
    """Computes e / (e + 2) with e = expm1(2 |x|), since 2 sigmoid(2x) - 1 loses all relative accuracy around 0."""
    size = tl.abs(x)
    e = _expm1_near(2.0 * tl.where(size < 10.0, size, 10.0))  # tanh is 1 from 9.1 on; NaN is restored below
    value = tl.div_rn(e, e + 2.0)
    return tl.where(x < 0.0, -value, tl.where(x >= 0.0, value, x))


@triton.jit
def sigmoid(x):
    e = exp(-tl.abs(x))  # exp(-x) would be infinite where the result is still a denormal
    return tl.div_rn(tl.where(x >= 0.0, 1.0, e), 1.0 + e)


@triton.jit
def softplus(x):
    """log(1 + e ** x) = max(x, 0) + log1p(u) with u = e ** -|x|, and log1p(u) = 2 artanh(u / (u + 2)) by its series."""
    u = exp(-tl.abs(x))
    s = tl.div_rn(u, u + 2.0)  # at most 1 / 3
    t = s * s
    p = 1.0 / 15.0
    p = p * t + 1.0 / 13.0
    p = p * t + 1.0 / 11.0
    p = p * t + 1.0 / 9.0
    p = p * t + 1.0 / 7.0
    p = p * t + 1.0 / 5.0
    p = p * t + 1.0 / 3.0
    return tl.where(x > 0.0, x, 0.0) + 2.0 * (s + s * t * p)


@triton.jit
def sinh(x):
    size = tl.abs(x)
    near = size <= 20.0
    e = _expm1_near(tl.where(near, size, 0.0))
    half = exp(0.5 * size)  # e ** size itself overflows before sinh does
    value = tl.where(near, 0.5 * (e + tl.div_rn(e, e + 1.0)), 0.5 * half * half)
    return tl.where(x < 0.0, -value, tl.where(x >= 0.0, value, x))


@triton.jit
def erf(x):
    """Uses two polynomials, around 0 and in the exponent; 1 from 3.925 on."""
    size = tl.abs(x)
    size = tl.where(size < 3.925, size, 3.925)
    s = size * size
    p = -5.99104969e-4
    p = p * s + 4.99339588e-3
    p = p * s - 2.67667342e-2
    p = p * s + 1.12818025e-1
    p = p * s - 3.76124859e-1
    p = p * s + 1.28379151e-1
    near = size + size * p
    q = 1.72948930e-5
    q = q * size - 3.83208680e-4
    q = q * size + 3.88393435e-3
    q = q * size - 2.42545605e-2
    q = q * size + 1.06777847e-1
    q = q * size + 6.34846687e-1
    q = q * size + 1.28717512e-1
    far = 1.0 - exp(-(q * size + size))
    value = tl.where(size > 0.921875, far, near)
    return tl.where(x < 0.0, -value, tl.where(x >= 0.0, value, x))


@triton.jit
def clip(x, low, high):
    """Bounds x to low..high; NaN stays NaN."""
    return tl.where(x < low, low, tl.where(x > high, high, x))


@triton.jit
def negative_part(x, scale):
    """Returns x if it is positive, otherwise scale (e ** x - 1)."""
    return tl.where(x > 0.0, x, scale * expm1(tl.where(x > 0.0, 0.0, x)))


@triton.jit
def times_share(x, share):
    """Returns x times a share that is 0 at x = -inf, where the product is 0, its limit, instead of NaN."""
    return tl.where(x < -3.4028234663852886e38, 0.0 * share, x * share)


@triton.jit
def relu(x):
    """Returns max(x, 0); NaN gives NaN, as in torch."""
    return tl.where(x < 0.0, 0.0, x)


@triton.jit
def activation(x, ACTIVATION: tl.constexpr):
    value = x
    if ACTIVATION == "relu":
        value = relu(x)
    if ACTIVATION == "tanh":
        value = tanh(x)
    if ACTIVATION == "sigmoid":
        value = sigmoid(x)
    if ACTIVATION == "softplus":
        value = softplus(x)
    if ACTIVATION == "elu":
        value = negative_part(x, 1.0)
    if ACTIVATION == "selu":
        value = 1.0507009873554805 * negative_part(x, 1.6732632423543772)
    if ACTIVATION == "gelu":
        value = times_share(x, 0.5 * (1.0 + erf(x * 0.7071067811865476)))
    if ACTIVATION == "gelu_tanh":
        value = times_share(x, sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x)))
    if ACTIVATION == "silu":
        value = times_share(x, sigmoid(x))
    if ACTIVATION == "mish":
        value = times_share(x, tanh(softplus(x)))
    if ACTIVATION == "relu6":
        value = clip(x, 0.0, 6.0)
    if ACTIVATION == "hard_tanh":
        value = clip(x, -1.0, 1.0)
    if ACTIVATION == "hard_sigmoid":
        value = clip(tl.div_rn(x, 6.0) + 0.5, 0.0, 1.0)
    if ACTIVATION == "hard_silu":
        value = times_share(x, clip(tl.div_rn(x, 6.0) + 0.5, 0.0, 1.0))
    if ACTIVATION == "softsign":
        share = tl.div_rn(x, 1.0 + tl.abs(x))
        value = tl.where(tl.abs(x) > 3.4028234663852886e38, tl.where(x > 0.0, 1.0, -1.0), share)
    if ACTIVATION == "log_sigmoid":
        value = -softplus(-x)
    return value


@triton.jit
def is_finite(x):
    return tl.abs(x) <= 3.4028234663852886e38
