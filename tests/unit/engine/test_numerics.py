"""The numerics name the properties of a processor that decide the bits."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_service.engine import numerics
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.numerics import instruction_set, integer_instructions, vendor
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper, numpy_helper

from .test_user_graph import config_of, model_bytes, write

INFO = """
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model name\t:
{flags}\t: fpu avx {given}

processor\t: 1
vendor_id\t: another
cpu family\t: 7
{flags}\t: fpu
"""


def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, flags: str = "flags") -> None:
    """Describes another processor than this machine's."""
    told = tmp_path / "cpuinfo"
    told.write_text(INFO.format(given=given, flags=flags))
    monkeypatch.setattr(numerics, "CPU_INFO", told)


def quantized() -> bytes:
    """total' = total + x as 8-bit integers times ones."""
    ones = numpy_helper.from_array(np.ones((2, 2), np.int8), "ones")
    bounds = {"least": np.float32(0), "most": np.float32(255)}
    nodes = [
        helper.make_node("Constant", [], ["ones"], value=ones),
        *(helper.make_node("Constant", [], [name], value_float=value) for name, value in bounds.items()),
        helper.make_node("Clip", ["x", "least", "most"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("MatMulInteger", ["bytes", "ones"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["total", "y"], ["total_after"]),
    ]
    return model_bytes(nodes, {"x": ["B", 2], "total": ["B", 2]}, {"y": ["B", 2], "total_after": ["B", 2]})


def test_the_first_processor_s_properties(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor(monkeypatch, tmp_path, "fma avx512_vnni avx2")
    assert instruction_set() == f"{platform.machine()}+avx2+fma+avx"
    assert integer_instructions() == "integers+avx512_vnni"
    assert vendor() == "GenuineIntel 6"
    processor(monkeypatch, tmp_path, "asimd", flags="Features")
    assert instruction_set() == f"{platform.machine()}+avx+asimd"
    monkeypatch.setattr(numerics, "CPU_INFO", tmp_path / "none")
    assert (instruction_set(), vendor()) == (platform.machine(), "")


def test_processors_whose_products_of_integers_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without VNNI, onnxruntime adds pairs of such products in 16 bits: 255 * 127 * 64 becomes about half as much."""
    state = {"name": "total", "input": "total", "output": "total_after", "shape": [2]}
    integers = write_bundle(
        tmp_path / "integers", config_of("step", states=[state], constants=[]), {}, graph=quantized()
    )
    floats = write(tmp_path / "floats")
    found = []
    for given in ("avx2", "avx2 avx_vnni"):
        processor(monkeypatch, tmp_path, given)
        found.append([load_engine(bundle, "cpu", 1).numerics for bundle in (integers, floats)])
    assert [" integers " in text for text in found[0]] == [True, False]
    assert [" integers+avx_vnni " in text for text in found[1]] == [True, False]
    assert found[0][1] == found[1][1]
