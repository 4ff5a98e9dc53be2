"""Weights beside the .onnx file are read from its folder only, and only if they are complete."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cellkeeper_service.converters import ImportRefused, import_onnx
from cellkeeper_service.converters.onnx.graph import read_graph
from cellkeeper_service.engine.onnx_checks import parse_graph
from cellkeeper_service.errors import StartError
from onnx import TensorProto, helper
from onnx.external_data_helper import convert_model_to_external_data

from testing.bundles import Array
from verification.fuzz.values import flipped
from verification.parity.onnx_cases import HANDMADE_CONSTANTS, handmade_graph

from .leftovers import refused

OPTIONS: dict[str, Any] = {"constants": HANDMADE_CONSTANTS, "max_batch": 4, "report": str}
DATA = "bank.onnx.data"


def saved(folder: Path, change: Callable[[Any], object] = lambda tensor: None) -> Path:
    """Saves the graph with all weights in one file beside it. change: applied to the first tensor."""
    folder.mkdir(exist_ok=True)
    model = onnx.load_model_from_string(handmade_graph())
    convert_model_to_external_data(model, location=DATA, size_threshold=0)
    onnx.save_model(model, folder / "bank.onnx")
    model = onnx.load_model(folder / "bank.onnx", load_external_data=False)
    change(next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL))
    (folder / "bank.onnx").write_bytes(model.SerializeToString())
    return folder / "bank.onnx"


def entry(key: str, value: str) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        for item in tensor.external_data:
            if item.key == key:
                item.value = value

    return change


def weights(path: Path) -> dict[str, Array]:
    model = onnx.load_model_from_string(path.read_bytes())
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_bundle_has_the_weights_inside(tmp_path: Path) -> None:
    path = saved(tmp_path / "there")
    assert (tmp_path / "there" / DATA).stat().st_size > 0
    imported = import_onnx(path, tmp_path / "m", **OPTIONS)
    (tmp_path / "w.onnx").write_bytes(handmade_graph())
    expected, came = weights(tmp_path / "w.onnx"), weights(imported.bundle.path / "model.onnx")
    for name, value in expected.items():
        np.testing.assert_array_equal(came[name], value)
    assert imported.parity.difference == 0.0


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    path = saved(tmp_path / "there")
    (path.parent / DATA).rename(path.parent / "blob")
    (path.parent / DATA).symlink_to("blob")
    import_onnx(path, tmp_path / "m", **OPTIONS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (entry("location", "../secret"), r"got location '../secret', expected the name of a file beside"),
        (entry("location", "sub/../../secret"), "expected the name of a file beside"),
        (entry("location", "/etc/passwd"), "got location '/etc/passwd', expected the name of a file beside"),
        (entry("location", "..\\secret"), "expected the name of a file beside"),
        (entry("location", ""), "got location '', expected the name of a file beside"),
        (entry("location", "nowhere"), "location 'nowhere' cannot be read"),
        (entry("location", "a\0b"), "cannot be read"),
        (entry("location", "x" * 5000), "xxx.*cannot be read"),
        (entry("location", "."), "not a file"),
        (entry("location", "out"), "is a link that points outside the folder"),
        (entry("location", "loop"), "cannot be read"),
        (entry("offset", "-4"), "got .* bytes at -4 of"),
        (entry("offset", "1000000"), "at 1000000 of .* is it the file that was saved with this graph"),
        (entry("offset", "four"), "offset or length: .*'four'.* expected whole numbers"),
        (entry("length", "3"), "got 3 bytes at"),
        (lambda tensor: tensor.dims.append(1 << 40), "got .* expected .* bytes for shape"),
        (lambda tensor: tensor.dims.append(-1), "in another file, expected floats"),
        (lambda tensor: setattr(tensor, "data_type", TensorProto.STRING), "in another file, expected floats"),
        (lambda tensor: setattr(tensor, "data_type", 99), "in another file, expected floats"),
    ],
)
def test_what_leads_elsewhere_is_refused(change: Callable[[Any], object], words: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 10_000)
    path = saved(tmp_path / "there", change)
    (path.parent / "out").symlink_to("../secret")
    (path.parent / "loop").symlink_to("loop")
    error = refused(tmp_path, words, import_onnx, path, tmp_path / "m", **OPTIONS)
    assert error.place.startswith(f"{path}: tensor ")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = saved(tmp_path / "there")
    data = path.parent / DATA
    data.write_bytes(data.read_bytes()[:-8])
    refused(tmp_path, "is it the file that was saved", import_onnx, path, tmp_path / "m", **OPTIONS)
    data.unlink()
    refused(tmp_path, f"location '{DATA}' cannot be read", import_onnx, path, tmp_path / "m", **OPTIONS)
    bare = {**OPTIONS, "place": None}
    del bare["place"]
    refused(tmp_path, "pass the path of the .onnx file", import_onnx, path.read_bytes(), tmp_path / "m", **bare)


def test_tensors_that_claim_the_same_bytes_are_not_copied(tmp_path: Path) -> None:
    path = saved(tmp_path / "there")
    model = onnx.load_model(path, load_external_data=False)
    first = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    for number in range(1000):
        model.graph.initializer.append(first)
        model.graph.initializer[-1].name = f"copy{number}"
    path.write_bytes(model.SerializeToString())
    refused(
        tmp_path,
        "got tensors of .* bytes in other files, expected at most",
        import_onnx,
        path,
        tmp_path / "m",
        **OPTIONS,
    )


def sparse(model: Any) -> None:
    """Adds a sparse initializer whose values are in another file."""
    values = helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0])
    values.ClearField("float_data")
    values.data_location = TensorProto.EXTERNAL
    item = values.external_data.add()
    item.key, item.value = "location", "/etc/passwd"
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1]))


def test_a_bundle_never_reads_another_file(tmp_path: Path) -> None:
    data = saved(tmp_path / "there").read_bytes()
    with pytest.raises(StartError, match="keeps weights in other files"):
        parse_graph(data, "g")
    model = onnx.load_model_from_string(handmade_graph())
    sparse(model)
    with pytest.raises(StartError, match="keeps weights in other files"):
        parse_graph(bytes(model.SerializeToString()), "g")
    with pytest.raises(ImportRefused, match="got location '/etc/passwd'"):
        read_graph(bytes(model.SerializeToString()), "g", tmp_path)


def test_flipped_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path / "there")
    whole, seed = path.read_bytes(), int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    for number in range(150):
        data = flipped(random.Random(f"{seed}/{number}"), whole)
        try:
            read_graph(data, "g", path.parent)
        except ImportRefused as error:
            text = str(error)
            assert len(text) < 1500, number
            assert len(text.splitlines()) == 1, number
