"""Inputs are converted to a model's raw bytes; the fast path for common inputs agrees with the general one."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from decimal import Decimal
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from cellkeeper import InvalidArgument, Model, TensorSpec
from cellkeeper._session.group_inputs import GroupInputs
from cellkeeper._session.inputs import Inputs, convert_state

NAN, INF = float("nan"), float("inf")


def model(dtype: str = "float32", shape: tuple[int, ...] = (3,), vocabulary: int = 0, missing: bool = False) -> Model:
    spec = TensorSpec("input", dtype, shape)
    return Model("m", b"", "", True, 0.0, "", "", spec, vocabulary, missing, (), (), 8, 0, 0)


def usual(dtype: str) -> list[Any]:
    row = np.arange(3, dtype=dtype)
    swapped = row.astype(row.dtype.newbyteorder(">"))
    return [row, row.tolist(), tuple(row.tolist()), row.astype("f8"), row.astype("i4"), swapped]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_one_time_step(dtype: str) -> None:
    inputs = Inputs(model(dtype))
    expected = np.arange(3, dtype=dtype).tobytes()
    for given in usual(dtype):
        assert inputs.convert(given) == (expected, True)
    strided = np.repeat(np.arange(3, dtype=dtype), 2)[::2]
    assert inputs.convert(strided) == (expected, True)
    assert inputs.convert(np.arange(3, dtype=dtype).reshape(1, 3)) == (expected, False)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_is_refused_unless_it_means_missing(dtype: str, value: float) -> None:
    row = np.array([0.0, value, 1.0], dtype)
    for given in (row, row.tolist(), row.astype("f8"), row.reshape(1, 3)):
        with pytest.raises(InvalidArgument, match="NaN or infinity"):
            Inputs(model(dtype)).convert(given)
        filling = Inputs(model(dtype, missing=True))
        if np.isnan(value):
            assert filling.convert(given)[0] == row.tobytes()
        else:
            with pytest.raises(InvalidArgument, match="got infinity at time step 0, feature 1, expected finite"):
                filling.convert(given)


def test_large_values_raise_no_warning() -> None:
    row = np.array([3e38, -3e38, 0.0], np.float32)
    assert Inputs(model()).convert(row) == (row.tobytes(), True)
    with pytest.raises(InvalidArgument, match="NaN or infinity"):
        Inputs(model()).convert(np.array([1e300, 0.0, 0.0]))


def test_token_ids() -> None:
    inputs = Inputs(model("int32", (), vocabulary=10))
    for given in (7, np.int64(7), np.array(7), np.uint8(7)):
        assert inputs.convert(given) == (np.int32(7).tobytes(), True)
    assert inputs.convert([7, 9]) == (np.array([7, 9], np.int32).tobytes(), False)
    wrong: list[Any] = [10, -1, 2**40, 1.0, [1, 10], True, None]
    for given in wrong:
        with pytest.raises(InvalidArgument, match="inputs: got"):
            inputs.convert(given)
    said: list[tuple[Any, str]] = [([], "no time step"), ("seven", "str"), (b"7", "bytes")]
    for given, came in (*said, (["a"], "dtype object: not a number")):
        with pytest.raises(InvalidArgument, match=f"inputs: got {came}.*, expected one integer"):
            inputs.convert(given)


def masked(values: Any, mask: Any, dtype: str = "f8") -> Any:
    return np.ma.masked_array(np.array(values, dtype), mask)


def with_one_missing() -> dict[str, Any]:
    """Returns three features of one time step, with the second one missing; the value below it must not be used."""
    row = masked([0, -9999, 1], [0, 1, 0])
    objects: dict[str, Any] = {
        "NaN": [0.0, NAN, 1.0],
        "None": [0, None, 1],
        "None in an array": np.array([0.0, None, 1.0], object),
        "mask": row,
        "mask, float32": row.astype("f4"),
        "mask, integers": row.astype("i8"),
        "mask, booleans": masked([0, 1, 1], [0, 1, 0], "?"),
        "mask over an infinity": masked([0, INF, 1], [0, 1, 0]),
        "mask over what float32 cannot hold": masked([0, 1e300, 1], [0, 1, 0]),
        "masked element in a list": [0, np.ma.masked, 1],
        "list of a masked row": list(row),
        "mask, objects": masked([0, -9999, 1], [0, 1, 0], "O"),
    }
    try:
        pandas: Any = import_module("pandas")
    except ImportError:  # comes with the extra "demo"
        return objects
    objects["pandas.NA"] = [0.0, pandas.NA, 1.0]
    objects["Series of Float64"] = pandas.Series([0.0, None, 1.0], dtype="Float64")
    objects["Series of Int64"] = pandas.Series([0, None, 1], dtype="Int64")
    objects["Series of objects"] = pandas.Series([0, pandas.NA, 1], dtype=object)
    return objects


@pytest.mark.parametrize("name", with_one_missing())
def test_whatever_says_missing_is_nan(name: str) -> None:
    given = with_one_missing()[name]
    last = [1.0 if name == "mask, booleans" else 1]
    raw, single = Inputs(model(missing=True)).convert(given)
    assert single
    np.testing.assert_array_equal(np.frombuffer(raw, "f4"), [0, NAN, *last])
    with pytest.raises(InvalidArgument, match="NaN or infinity at time step 0, feature 1, expected finite") as caught:
        Inputs(model()).convert(given)
    assert caught.value.field == "inputs"


@pytest.mark.parametrize("name", with_one_missing())
def test_whatever_says_missing_is_nan_in_a_chunk_too(name: str) -> None:
    given = with_one_missing()[name]
    chunks: list[Any] = [[[5, 6, 7], given], ([5, 6, 7], given)]
    for chunk in chunks:
        raw, single = Inputs(model(missing=True)).convert(chunk)
        assert not single
        np.testing.assert_array_equal(np.frombuffer(raw, "f4").reshape(2, 3), [[5, 6, 7], [0, NAN, 1]])
        with pytest.raises(InvalidArgument, match="at time step 1, feature 1"):
            Inputs(model()).convert(chunk)


def test_masks_of_chunks() -> None:
    table = masked([[1, 2, 3], [4, 5, 6]], [[0, 0, 1], [1, 0, 0]])
    for given in (table, list(table), tuple(table), deque(table), [list(row) for row in table], table.astype("i4")):
        raw, _ = Inputs(model(missing=True)).convert(given)
        np.testing.assert_array_equal(np.frombuffer(raw, "f4").reshape(2, 3), [[1, 2, NAN], [NAN, 5, 6]])
    assert table.data.tolist() == [[1, 2, 3], [4, 5, 6]]
    unmasked = masked([1, 2, 3], False)
    for given in (unmasked, [unmasked], list(unmasked)):
        assert Inputs(model()).convert(given)[0] == np.array([1, 2, 3], "f4").tobytes()


def test_buffers_of_several_dimensions() -> None:
    chunk: Any = np.arange(6, dtype="f4").reshape(2, 3)
    rows = [memoryview(row) for row in chunk]
    buffers: list[Any] = [memoryview(chunk), rows, memoryview(chunk.astype("f8"))]
    for given in buffers:
        assert Inputs(model()).convert(given)[0] == chunk.tobytes()


def test_a_frame_of_pandas() -> None:
    pandas: Any = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, None], "b": [2.0, 5.0], "c": [None, 6]}).convert_dtypes()
    raw, _ = Inputs(model(missing=True)).convert(frame)
    np.testing.assert_array_equal(np.frombuffer(raw, "f4").reshape(2, 3), [[1, 2, NAN], [NAN, 5, 6]])


def test_ids_are_never_missing() -> None:
    inputs = Inputs(model("int32", (), vocabulary=10))
    assert inputs.convert(masked([3, 4], False, "i4")) == (np.array([3, 4], "i4").tobytes(), False)
    wrong: list[Any] = [masked([3, 4], [0, 1], "i4"), [3, None], [3, np.ma.masked], np.array([3, None], object)]
    for given in wrong:
        with pytest.raises(InvalidArgument, match="inputs: got a missing value at time step 1"):
            inputs.convert(given)
    wrong = [np.ma.masked, None, masked(3, True, "i4")]
    for one in wrong:
        with pytest.raises(InvalidArgument, match="inputs: got a missing value at time step 0"):
            inputs.convert(one)


def test_what_is_no_number_is_named() -> None:
    wrong: list[Any] = [[0.0, None, value] for value in ("1.5", Decimal(1), 1j, [1], 2**70)]
    for given in wrong:
        with pytest.raises(InvalidArgument, match="inputs: got"):
            Inputs(model(missing=True)).convert(given)
    chunk: Any = [[0, 0, None], [0, 0, Decimal(1)]]
    with pytest.raises(InvalidArgument, match="dtype object: not a number at time step 1, feature 2"):
        Inputs(model(missing=True)).convert(chunk)


@pytest.mark.parametrize(
    ("given", "came"),
    [
        ([[0, 0, 1], [0, 2**70, 0]], "an integer of more than 64 bits at time step 1, feature 1"),
        ([[0, 0, 1], [0, 1]], "length 2 at time step 1, length 3 at time step 0"),
        ([[0, 0, 1], 5], "a single value at time step 1, length 3 at time step 0"),
        ({"a": 1, "b": 2, "c": 3}, "dict"),
        ((value for value in (1, 2, 3)), "generator"),
        (None, "None"),
        (b"123", "bytes"),
    ],
)
def test_what_is_no_array_of_numbers_is_named(given: Any, came: str) -> None:
    with pytest.raises(InvalidArgument, match=f"inputs: got {came}, expected"):
        Inputs(model()).convert(given)


class Unreadable:
    """Fails as a tensor of PyTorch does that requires gradients, and as one without axes."""

    def __array__(self, *_: object, **__: object) -> Any:
        raise RuntimeError("detach it first")

    def __len__(self) -> int:
        raise TypeError("it has no axes")


UNREADABLE: Any = Unreadable()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (UNREADABLE, "detach it first"),
        ([UNREADABLE, UNREADABLE], "detach it first"),
        ([[0, 0, 1], UNREADABLE], "a single value at time step 1, length 3 at time step 0"),
    ],
)
def test_what_cannot_be_read_says_why(given: Any, why: str) -> None:
    steps = replace(model(), feedback=(0, -1, -1), states=(TensorSpec("h", "float32", (3,)),))
    for field, call in (
        ("inputs", lambda: Inputs(steps).convert(given)),
        (r"inputs, row 1 \(session 'b'\)", lambda: GroupInputs(steps).convert(["a", "b"], [[0, 0, 1], given])),
        ("known", lambda: Inputs(steps).convert_known(given, 1)),
    ):
        with pytest.raises(InvalidArgument, match=f"^{field}: got .*{why}"):
            call()
    with pytest.raises(InvalidArgument, match=r"^state: got h: "):
        convert_state(steps, {"h": given}, "state")


def test_elements_of_inputs_of_several_axes_are_named() -> None:
    with pytest.raises(InvalidArgument, match=r"NaN or infinity at time step 1, element \[0, 1\]"):
        Inputs(model(shape=(2, 2))).convert(np.array([[[1, 2], [3, 4]], [[1, NAN], [3, 4]]]))


def test_known_features_of_a_forecast() -> None:
    inputs = Inputs(replace(model(missing=True), feedback=(0, -1, -1)))
    given: list[Any] = [masked([[1, -9999]], [[0, 1]]), [[1, None]], [[1, np.ma.masked]], [[1, NAN]]]
    for known in given:
        np.testing.assert_array_equal(np.frombuffer(inputs.convert_known(known, 1), "f4"), [1, NAN])
    strict = Inputs(replace(model(), feedback=(0, -1, -1)))
    wrong: list[tuple[Any, int, str]] = [(known, 1, "NaN or infinity at time step 0, feature 1") for known in given]
    wrong += [([[1, 2]], 2, r"shape \[1, 2\]"), ([[1, 2], [1]], 2, "length 1 at time step 1"), (None, 1, "none")]
    wrong += [([[1, 2], [1, "x"]], 2, "dtype object: not a number at time step 1, feature 1")]
    for known, steps, came in wrong:
        with pytest.raises(InvalidArgument, match=f"known: got {came}") as caught:
            strict.convert_known(known, steps)
        assert caught.value.field == "known"
    with pytest.raises(InvalidArgument, match=r"known: got shape \[1, 1\], expected None: every feature is predicted"):
        Inputs(replace(model(), feedback=(0, 1, 2))).convert_known([[1]], 1)


@pytest.mark.parametrize(
    "given", [masked([1, -9999], [0, 1]), [1, None], [1, NAN], [1, INF], [1, 1e300], ["1", "2"], [1, 1j]]
)
def test_a_state_is_taken_as_it_is_or_refused(given: Any) -> None:
    count = replace(model(), states=(TensorSpec("h", "float32", (2,)), TensorSpec("n", "int32", (2,))))
    good: dict[str, Any] = {"h": [1, 2.5], "n": [1, 2]}
    assert [raw for _, raw in convert_state(count, good, "state")] == [
        np.array([1, 2.5], "f4").tobytes(),
        np.array([1, 2], "i4").tobytes(),
    ]
    for name in ("h", "n"):
        with pytest.raises(InvalidArgument, match=f"state: got {name}") as caught:
            convert_state(count, {**good, name: given}, "state")
        assert caught.value.field == "state"
    with pytest.raises(InvalidArgument, match=r"state: got n: 2.5 at \[1\], expected finite values of int32"):
        convert_state(count, {**good, "n": [1, 2.5]}, "state")
