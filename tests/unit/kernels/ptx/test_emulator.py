"""The emulator computes as a device does, and refuses what a device need not order."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from . import GlobalMemory, UnsupportedPTX, load, run
from .arithmetic import OPERATIONS, fma
from .global_memory import GlobalRace, IllegalAccess
from .shared_memory import SharedHazard
from .tensor_cores import SUMS, mma_tf32

Floats = NDArray[np.float32]
LANES = 64
FRAME = """
.version 8.7
.target sm_90a
.extern .shared .align 16 .b8 global_smem[];
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u64 .ptr .global .align 1 kernel_param_1
)
.reqntid 64
{
	.reg .b32 	%r<9>;
	ld.param.b64 	%rd1, [kernel_param_0];
	ld.param.b64 	%rd2, [kernel_param_1];
	mov.u32 	%r1, %tid.x;
	mad.wide.u32 	%rd3, %r1, 4, %rd1;
	mad.wide.u32 	%rd4, %r1, 4, %rd2;
	shl.b32 	%r2, %r1, 2;
	mov.b32 	%r3, global_smem;
	add.s32 	%r4, %r3, %r2;
	xor.b32 	%r5, %r2, OTHER;
	add.s32 	%r6, %r3, %r5;
	setp.lt.u32 	%p1, %r1, 32;
	setp.eq.u32 	%p2, %r1, 62;
	setp.eq.u32 	%p3, %r1, 63;
BODY
	ret;
}
"""
STORE = "ld.global.b32 { %r7 }, [ %rd3 + 0 ]; st.shared.b32 [%r4], %r7;"
LOAD = "ld.shared.b32 %r8, [%r6]; st.global.b32 [ %rd4 + 0 ], { %r8 };"
COPY = "cp.async.ca.shared.global [ %r4 + 0 ], [ %rd3 + 0 ], 0x4; cp.async.commit_group;"
BARRIER = "bar.sync 0;"
WARP_BARRIER = "bar.warp.sync -1;"
WAIT = "cp.async.wait_group 0;"
WAIT_BUT_FOR_ONE = "cp.async.wait_group 1;"
ALL_READ_ONE = "ld.shared.b32 %r8, [%r3];"
TWO_READ_ONE = "@%p2 ld.shared.b32 %r8, [%r3]; @%p3 ld.shared.b32 %r8, [%r3];"
OTHER_WARP = 128
OTHER_THREAD = 4


def execute(body: str, other: int = OTHER_WARP, grid: int = 1, late: bool = True, outside: int = 0) -> NDArray[Any]:
    """Runs the statements of a body, which copies the source to the target."""
    source, target = np.arange(LANES, dtype=np.uint32), np.zeros(LANES, np.uint32)
    memory = GlobalMemory()
    for name, array in (("source", source), ("target", target)):
        memory.allow(name, array.ctypes.data, array.nbytes, array.itemsize)
    text = FRAME.replace("OTHER", str(other)).replace("BODY", "\n".join(f"\t{line};" for line in body.split(";")[:-1]))
    addresses = [source.ctypes.data + outside, target.ctypes.data]
    run(load(text), (grid,), 4 * LANES, addresses, memory, copies_late=late)
    return target


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("other", [OTHER_WARP, OTHER_THREAD])
@pytest.mark.parametrize("fill", [STORE, COPY + WAIT])
def test_what_barriers_order_is_computed(fill: str, other: int, late: bool) -> None:
    expected = np.arange(LANES) ^ (other // 4)
    assert np.array_equal(execute(fill + BARRIER + LOAD, other, late=late), expected)


@pytest.mark.parametrize("fill", [STORE, COPY + WAIT])
def test_a_barrier_of_warps_orders_their_own_threads_only(fill: str) -> None:
    again = STORE + WARP_BARRIER + LOAD + WARP_BARRIER + STORE
    assert np.array_equal(
        execute(fill + WARP_BARRIER + LOAD + WARP_BARRIER + again, OTHER_THREAD), np.arange(LANES) ^ 1
    )
    with pytest.raises(SharedHazard, match="a read of what another thread writes"):
        execute(fill + WARP_BARRIER + LOAD, OTHER_WARP)
    with pytest.raises(SharedHazard, match="a write to what another thread reads"):
        execute(fill + BARRIER + LOAD + WARP_BARRIER + STORE, OTHER_WARP)


@pytest.mark.parametrize("other", [OTHER_WARP, OTHER_THREAD])  # a warp need not execute its threads in step, either
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (STORE + LOAD, "a read of what another thread writes"),
        (COPY + WAIT + LOAD, "a read of what another thread writes"),
        (COPY + BARRIER + LOAD, "a read of what an asynchronous copy may still write"),
        (COPY + BARRIER + WAIT + LOAD, "a read of what another thread writes"),
        (COPY + WAIT_BUT_FOR_ONE + BARRIER + LOAD, "a read of what an asynchronous copy may still write"),
        (COPY + STORE, "a write to what an asynchronous copy may still write"),
        (STORE + BARRIER + LOAD + STORE, "a write to what another thread reads"),
        (STORE + BARRIER + LOAD + COPY, "a write to what another thread reads"),
        (STORE + BARRIER + ALL_READ_ONE + "@%p3 st.shared.b32 [%r3], %r1;", "a write to what another thread reads"),
        (STORE + BARRIER + TWO_READ_ONE + "@%p3 st.shared.b32 [%r3], %r1;", "a write to what another thread reads"),
        (STORE + "st.shared.b32 [%r6], %r1;", "a write to what another thread writes"),
        (LOAD, "nothing has written"),
        ("st.shared.b32 [%r3], %r1;", "threads of one instruction write different values"),
        ("st.shared.b32 [%r4+4], %r1;", "beyond the 256 bytes"),
        ("st.shared.b32 [%r4+2], %r1;", "no multiple"),
    ],
)
def test_a_hazard_of_shared_memory_is_found(body: str, why: str, other: int, late: bool) -> None:
    with pytest.raises(SharedHazard, match=why):
        execute(body, other, late=late)


@pytest.mark.parametrize(
    ("body", "grid", "outside", "error", "why"),
    [
        (STORE, 1, 4, IllegalAccess, "4 bytes are read 4 bytes beyond source"),
        (STORE, 1, -4, IllegalAccess, "4 bytes are read"),
        (STORE, 1, 2, IllegalAccess, "4 bytes are read at"),
        ("ld.global.v2.b32 { %r7, %r8 }, [ %rd3 + 0 ];", 1, 0, IllegalAccess, "8 bytes are read at"),
        ("mov.u32 %r7, %ctaid.x; st.global.b32 [ %rd4 + 0 ], { %r7 };", 2, 0, GlobalRace, "different values"),
        ("st.global.b32 [ %rd2 + 0 ], { %r1 };", 1, 0, GlobalRace, "different values"),
        (
            "@%p2 st.global.b32 [ %rd2 + 0 ], { %r1 }; @%p3 st.global.b32 [ %rd2 + 0 ], { %r1 };",
            *(1, 0, GlobalRace),
            "two threads write different values",
        ),
        ("ld.global.b32 { %r7 }, [ %rd2 + 0 ]; st.global.b32 [ %rd4 + 0 ], { %r1 };", 1, 0, GlobalRace, "also writes"),
        ("st.global.b32 [ %rd4 + 0 ], { %r1 }; ld.global.b32 { %r7 }, [ %rd2 + 4 ];", 1, 0, GlobalRace, "has written"),
    ],
)
def test_an_illegal_access_of_memory_is_found(
    body: str, grid: int, outside: int, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        execute(body, grid=grid, outside=outside)


def test_a_masked_access_touches_nothing() -> None:
    body = "mov.u32 %r7, 0x5; @%p1 ld.global.b32 { %r7 }, [ %rd3 + 128 ]; @!%p1 st.global.b32 [ %rd4 + 0 ], { %r7 };"
    assert execute(body).tolist() == [0] * 32 + [5] * 32


def test_what_no_instruction_has_written_is_no_number() -> None:
    target = execute("@%p1 ld.global.b32 { %r7 }, [ %rd3 + 0 ]; st.global.b32 [ %rd4 + 0 ], { %r7 };")
    assert target[:32].tolist() == list(range(32))
    assert np.isnan(target[32:].view(np.float32)).all()


@pytest.mark.parametrize("which", [0, 1])
def test_ctas_that_branch_differently_are_both_executed(which: int) -> None:
    """The one that does not jump stores its numbers; both store what follows."""
    jump = f"mov.u32 %r7, %ctaid.x; setp.eq.u32 %p4, %r7, {which}; @%p4 bra $L;"
    store = "@%p1 st.global.b32 [ %rd4 + 0 ], { %r1 };"
    after = "\n$L:\n\t@!%p1 st.global.b32 [ %rd4 + 0 ], { %r1 };"
    assert execute(jump + store + after, grid=2).tolist() == list(range(LANES))
    alone = execute(jump + store + after, grid=1)
    assert alone[:32].any() == (which == 1)
    assert alone[32:].tolist() == list(range(32, LANES))


def test_an_operand_that_is_not_rounded_to_tf32_is_refused() -> None:
    def registers(count: int, value: float) -> list[NDArray[Any]]:
        return [np.full((1, 32), value, np.float32).view(np.uint32) for _ in range(count)]

    one, rounded, other = registers(2, 1.0), registers(4, 1.0 + 2.0**-10), registers(4, 1.0 + 2.0**-11)
    (came, *_) = mma_tf32(rounded, one, registers(4, 0.0), SUMS["once"])
    assert came.view(np.float32).flat[0] == 8 * (1.0 + 2.0**-10)
    with pytest.raises(ValueError, match="not rounded to tf32"):
        mma_tf32(other, one, registers(4, 0.0), SUMS["once"])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sin.approx.f32 %r7, %r1;", "an unknown instruction"),
        ("cp.async.ca.shared.global [ %r4 + 0 ], [ %rd3 + 0 ], 0x4, %r1;", "a part of a copy"),
        ("add.s32 %r7, %rd1, 1;", "%rd1 as uint32"),
        ("st.shared.b32 [%r4], %r7;", "'%r7' is read before it is written"),
        ("@%p1 bra $L;", "threads of a CTA branch differently"),
        ("@%p1 bar.sync 0;", "a predicate"),
        ("shfl.sync.bfly.b32 %r7, %r1, 1, 31, 15;", "an unknown instruction"),
        ('.pragma "nounroll";', "nounroll"),
    ],
)
def test_what_it_does_not_know_is_refused(body: str, why: str) -> None:
    with pytest.raises(UnsupportedPTX, match=why):
        execute(body)


def exact(a: float, b: float, c: float) -> Fraction:
    return Fraction(a) * Fraction(b) + Fraction(c)


def nearest(value: Fraction, around: np.float32) -> np.float32:
    """Returns the float32 nearest to a value, of those next to a guess; of two as near, the even one."""
    candidates = [np.nextafter(around, np.float32(side)) for side in (-np.inf, np.inf)] + [around]
    return min(candidates, key=lambda one: (abs(Fraction(float(one)) - value), int(one.view(np.uint32)) & 1))


def test_fma_rounds_once() -> None:
    """Also where float64 rounds to the middle of two float32, and among denormals."""
    draw = np.random.default_rng(1)
    a = draw.uniform(1, 2, 4000).astype(np.float32)
    b = draw.uniform(1, 2, 4000).astype(np.float32)
    b[::2] = 1 + 2.0**-12 * draw.integers(1, 64, 2000)
    a[::2] = 1 + 2.0**-12 * draw.integers(1, 64, 2000)  # their product often ends halfway between two float32
    c = (draw.choice([-1, 1], 4000) * 2.0 ** -draw.integers(20, 80, 4000)).astype(np.float32)
    a[1::4] *= np.float32(2.0**-140)
    c[1::4] *= np.float32(2.0**-100)
    came = fma(a[None], b[None], c[None])[0]
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    threes = np.stack([a, b, c], axis=1).tolist()
    expected = [nearest(exact(*three), guess) for three, guess in zip(threes, twice, strict=True)]
    assert came.tolist() == [float(value) for value in expected]
    assert (came != twice).any()  # the values reach what rounding twice gets wrong


INFINITE, MISSING, DENORMAL = float("inf"), float("nan"), 1e-40


@pytest.mark.parametrize(
    ("opcode", "operands", "expected"),
    [
        ("min.f32", (MISSING, 1.0), 1.0),
        ("max.f32", (1.0, MISSING), 1.0),
        ("min.f32", (0.0, -0.0), -0.0),
        ("max.f32", (-0.0, 0.0), 0.0),
        ("min.f32", (MISSING, MISSING), MISSING),
        ("max.f32", (MISSING, MISSING), MISSING),
        ("add.f32", (INFINITE, -INFINITE), MISSING),
        ("fma.rn.f32", (INFINITE, 0.0, 1.0), MISSING),
        ("fma.rn.f32", (1e30, 1e30, -INFINITE), -INFINITE),
        ("fma.rn.f32", (DENORMAL, 1.0, 0.0), DENORMAL),
        ("fma.rn.f32", (-1.0, 0.0, -0.0), -0.0),
        ("cvt.rmi.ftz.f32.f32", (-DENORMAL,), -0.0),
        ("cvt.rmi.ftz.f32.f32", (-1.5,), -2.0),
        ("div.rn.f32", (0.0, 0.0), MISSING),
        ("div.rn.f32", (DENORMAL, 2.0), DENORMAL / 2),
    ],
)
def test_floats_follow_the_rules_of_ptx(opcode: str, operands: tuple[float, ...], expected: float) -> None:
    with np.errstate(all="ignore"):
        came = OPERATIONS[opcode].compute(*(np.array([[value]], np.float32) for value in operands))
    bits = 0x7FFFFFFF if np.isnan(expected) else int(np.float32(expected).view(np.uint32))
    assert came.view(np.uint32).item() == bits


@pytest.mark.parametrize(
    ("value", "expected"), [(2.9, 2), (-2.9, -2), (3e9, 2**31 - 1), (-3e9, -(2**31)), (MISSING, 0)]
)
def test_conversion_to_integers_cuts_off_and_stays_in_range(value: float, expected: int) -> None:
    assert OPERATIONS["cvt.rzi.s32.f32"].compute(np.array([[value]], np.float32)).item() == expected


@pytest.mark.parametrize(
    ("opcode", "left", "right", "expected"),
    [
        ("setp.lt.f32", MISSING, 1.0, False),
        ("setp.gtu.f32", MISSING, 1.0, True),
        ("setp.ne.f32", MISSING, 1.0, False),
        ("setp.neu.f32", MISSING, 1.0, True),
        ("setp.num.f32", MISSING, 1.0, False),
        ("setp.nan.f32", 1.0, 2.0, False),
    ],
)
def test_comparisons_with_nan(opcode: str, left: float, right: float, expected: bool) -> None:
    operands = (np.array([[value]], np.float32) for value in (left, right))
    assert OPERATIONS[opcode].compute(*operands).item() is expected


@pytest.mark.parametrize(
    ("opcode", "operands", "expected"),
    [
        ("bfe.u32", (0xABCD1234, 8, 8), 0x12),
        ("bfe.s32", (0x00000080, 7, 1), 0xFFFFFFFF),
        ("bfe.s32", (0x00000080, 4, 3), 0),
        ("shl.b32", (1, 32), 0),
        ("shr.u32", (0x80000000, 40), 0),
        ("add.s32", (0xFFFFFFFF, 2), 1),
        ("popc.b32", (0xF0F00001,), 9),
    ],
)
def test_integers_follow_the_rules_of_ptx(opcode: str, operands: tuple[int, ...], expected: int) -> None:
    came = OPERATIONS[opcode].compute(*(np.array([[value]], np.uint32) for value in operands))
    assert came.item() == expected
