"""The emulator and the contract find what they are meant to find: PTX with one fault each."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from cellkeeper_service.engine.cuda import cells
from cellkeeper_service.engine.precision import Precision

from ..chunks import Model
from ..contract import check_values
from ..ptx.launches import Emulator

KERNEL = "lstm"
FAULTS: dict[str, tuple[str, str]] = {
    "barrier": (r"bar\.sync\s+0;", ""),
    "wait": (r"(cp\.async\.wait_group\s+)\d+;", r"\g<1>9;"),
    "no_wait": (r"cp\.async\.wait_group\s+\d+;", ""),
    "load_mask": (r"@%p\d+ (ld\.global)", r"\1"),
    "store_mask": (r"@%p\d+ (st\.global)", r"\1"),
    "copy_mask": (r"(cp\.async\.ca\.shared\.global .*0x\w+), %r\d+;", r"\1;"),
    "swizzle": (r"(xor\.b32\s+%r\d+, %r\d+, )\d+;", r"\g<1>0;"),
    "part_of_an_address": (r"(and\.b32\s+%r\d+, %r\d+, )\d+;", r"\g<1>0;"),
    "offset": (r"(ldmatrix.*\[%r\d+\+)(\d+)\]", r"\g<1>512]"),
    "width": (r"(mad\.wide\.s32\s+%rd\d+, %r\d+, )(\d+)", r"\g<1>12"),
}
OF_TENSOR_CORES: dict[str, tuple[str, str]] = {
    "rows_of_a": (r"(mma\.sync.*?\}, \{ )(%r\d+), (%r\d+), ", r"\1\3, \2, "),
    "columns_of_b": (r"(mma\.sync.*\}, \{ )(%r\d+), (%r\d+)( \}, \{)", r"\1\3, \2\4"),
    "sum": (r"(mma\.sync.*\}, \{ )(%r\d+), (%r\d+)(, %r\d+, %r\d+ \};)", r"\1\3, \2\4"),
}


def changed_in(pattern: str, replacement: str) -> Callable[[str], str]:
    """Returns what makes this change once in the kernel, in the middle of all places where it could."""

    def change(ptx: str) -> str:
        if f".entry {KERNEL}(" not in ptx:
            return ptx
        places = list(re.finditer(pattern, ptx))
        place = places[len(places) // 2] if places else None
        new = place.expand(replacement) if place else ""
        if place is None or new == place[0]:  # the PTX has changed, so the fault has to change, too
            raise ValueError(f"nothing to change reads {pattern}")
        return ptx[: place.start()] + new + ptx[place.end() :]

    return change


def check(model: Model) -> None:
    check_values(model, steps=2, batch=3, tolerance=4e-2, rounded=5e-4)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str) -> None:
    finds(fault, *FAULTS[fault], "tf32")


@pytest.mark.parametrize("fault", OF_TENSOR_CORES)
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_fault_of_a_product_is_found(fault: str, precision: Precision) -> None:
    finds(fault, *OF_TENSOR_CORES[fault], precision)


def finds(fault: str, pattern: str, replacement: str, precision: Precision) -> None:
    model = Model(cells, precision, hidden_size=130, input_size=40)
    with Emulator().installed():
        check(model)
    with Emulator(change=changed_in(pattern, replacement)).installed(), pytest.raises(AssertionError):
        check(model)
