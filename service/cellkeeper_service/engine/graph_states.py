"""Keeps the states of a user's graph between calls, in host memory or in the device's memory.

Either way, a row has the layout of a checkpoint: the tensors one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cellkeeper_service.domain.engine import Array, EngineLost, Rows
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import GraphState

from .arena import FLOAT_BYTES, Arena, whole_rows
from .binding import HOST, call
from .graph_writer import GraphWriter
from .onnx_device import GraphDevice
from .ort import open_session


class GraphStates(Protocol):
    """An arena of states with rows 0..rows - 1. P in shapes is the size of the padded batch, P >= B."""

    def reserve(self, rows: int) -> None:
        """Allocates so many rows; their values are undefined. Raises StartError if there is no room."""

    def write(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        """Writes whole states: uint8 [B, state_bytes]."""

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Reads whole states: uint8 [B, state_bytes]."""

    def gather(self, rows: Rows, padded: int) -> dict[str, Any]:
        """Returns the states of rows [B] as the graph takes them, by its input names, padded with zeros to P. Raises
        IndexError for a row out of range."""

    def join(self, results: Sequence[Any], count: int) -> tuple[Any, Array]:
        """Returns the first `count` of P states from the graph's results, which are in the order of its states: as
        `put` takes them, and as floats [count, N], in which a row is finite if that state is."""

    def put(self, rows: Rows, joined: Any) -> None:
        """Stores states that `join` returned in rows [B]."""


class HostStates:
    """Implements GraphStates in host memory."""

    def __init__(self, states: Sequence[GraphState]) -> None:
        self._states = states
        self._widths = [prod(state.shape) for state in states]
        self._dtypes = [np.dtype(state.dtype).newbyteorder("<") for state in states]
        self._arena = Arena([w * dtype.itemsize for w, dtype in zip(self._widths, self._dtypes, strict=True)])
        # the orders of the axes as the graph takes them, and as rows; np.moveaxis would find them out at each call
        axes = [(state.batch_axis, list(range(1, len(state.shape) + 1))) for state in states]
        self._for_graph = [(*rest[:axis], 0, *rest[axis:]) for axis, rest in axes]
        self._for_rows = [(axis, *range(axis), *rest[axis:]) for axis, rest in axes]

    def reserve(self, rows: int) -> None:
        self._arena.reserve(rows)

    def write(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        self._arena.write(rows, states)

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        return self._arena.read(rows)

    def gather(self, rows: Rows, padded: int) -> dict[str, Any]:
        leaves = [np.zeros((padded, width), dtype) for width, dtype in zip(self._widths, self._dtypes, strict=True)]
        self._arena.gather(rows, [whole_rows(leaf[: len(rows)]) for leaf in leaves])
        return {
            state.input: np.ascontiguousarray(leaf.reshape(-1, *state.shape).transpose(axes))
            for state, leaf, axes in zip(self._states, leaves, self._for_graph, strict=True)
        }

    def join(self, results: Sequence[Any], count: int) -> tuple[Any, Array]:
        leaves = []
        for width, dtype, axes, result in zip(self._widths, self._dtypes, self._for_rows, results, strict=True):
            values = result.transpose(axes)[:count]
            leaves.append(np.ascontiguousarray(values.reshape(-1, width), dtype))
        floats = [leaf for leaf in leaves if leaf.dtype.kind == "f"]
        return leaves, np.concatenate(floats, axis=1) if floats else np.zeros((count, 0), np.float32)

    def put(self, rows: Rows, joined: Any) -> None:
        self._arena.scatter(rows, [whole_rows(leaf) for leaf in joined])


class DeviceStates:
    """Implements GraphStates in the device's memory, for float32 states: only row numbers and finiteness are copied.

    onnxruntime has no operations on rows of its values, so small graphs do the work: `take` gathers rows and splits
    them into states, `pack` joins states into rows, and `put` writes rows into the arena, which is bound as both its
    input and its output, so that the ScatterND kernel copies nothing else. The arena is the result of `make`, so that
    graph's session allocates it, and returns it to the device when it is replaced. Its last row is zeros, for padding.
    """

    def __init__(self, states: Sequence[GraphState], device: GraphDevice, place: str) -> None:
        """place: where the graph is, for messages. Raises StartError, and EngineLost if the device fails."""
        self._states, self._device, self._place = states, device, place
        self._row_width = sum(prod(state.shape) for state in states)
        self._make, self._take, self._pack, self._put = (
            open_session(graph, 1, place, device) for graph in (_make(), _take(states), _pack(states), _put())
        )
        self._arena: Any = None
        self._rows = 0
        self.reserve(0)

    def reserve(self, rows: int) -> None:
        self._arena, self._rows = None, rows
        needed_mib = -(-rows * self._row_width * FLOAT_BYTES // 2**20)
        try:
            self._new_arena(0)  # first returns the old arena's memory to the device
            self._arena = self._new_arena(rows + 1)
        except EngineLost as error:
            raise StartError(
                f"arena_mib: {rows} rows of states of {self._place} take {needed_mib} MiB on {self._device.name}, and "
                f"allocating them failed ({error}); lower --arena-mib or free memory of the device"
            ) from error

    def write(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        self._check_rows(rows)
        self._store(rows, np.ascontiguousarray(states).view("<f4"))

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        self._check_rows(rows)
        feeds = {"arena": self._arena, "rows": rows.astype(np.int64)}
        (taken,) = call(self._take, self._device, feeds, {"whole": HOST})
        return np.ascontiguousarray(taken, "<f4").view(np.uint8)

    def gather(self, rows: Rows, padded: int) -> dict[str, Any]:
        self._check_rows(rows)
        numbers = np.full(padded, self._rows, np.int64)
        numbers[: len(rows)] = rows
        wanted = {f"state{i}": self._device for i in range(len(self._states))}
        taken = call(self._take, self._device, {"arena": self._arena, "rows": numbers}, wanted)
        return {state.input: value for state, value in zip(self._states, taken, strict=True)}

    def join(self, results: Sequence[Any], count: int) -> tuple[Any, Array]:
        feeds = {f"state{i}": result for i, result in enumerate(results)}
        wanted = {"whole": self._device, "finite": HOST}
        whole, finite = call(self._pack, self._device, feeds | {"count": np.array([count])}, wanted)
        return whole, finite

    def put(self, rows: Rows, joined: Any) -> None:
        self._check_rows(rows)
        self._store(rows, joined)

    def _store(self, rows: Rows, whole: Any) -> None:
        feeds = {"arena": self._arena, "rows": rows.astype(np.int64)[:, None], "whole": whole}
        call(self._put, self._device, feeds, {"after": self._arena})

    def _new_arena(self, rows: int) -> Any:
        (arena,) = call(
            _Shrinking(self._make, self._device),
            self._device,
            {"shape": np.array([rows, self._row_width])},
            {"arena": self._device},
        )
        return arena

    def _check_rows(self, rows: Rows) -> None:
        """Raises IndexError for rows out of range, which the kernels would read and write without a check."""
        if len(rows) and (rows.min() < 0 or rows.max() >= self._rows):
            raise IndexError(f"rows {rows.min()}..{rows.max()}, the arena has {self._rows}")


class _Shrinking:
    """A session that returns unused memory to the device after each call."""

    def __init__(self, session: Any, device: GraphDevice) -> None:
        self._session = session
        self.io_binding = session.io_binding
        self._options = onnxruntime.RunOptions()
        kind = "cpu" if device.kind == "cpu" else "gpu"
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"{kind}:{device.number}")

    def run_with_iobinding(self, binding: Any) -> None:
        self._session.run_with_iobinding(binding, self._options)


def _make() -> bytes:
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    node = helper.make_node("ConstantOfShape", ["shape"], ["arena"], value=zero)
    return _model([node], [_ints("shape", [2])], [_floats("arena", ["R", "S"])])


def _take(states: Sequence[GraphState]) -> bytes:
    """Builds (arena [R, S], rows [P]) -> (whole [P, S], state0, state1 ... as the user's graph takes them)."""
    parts = [f"part{i}" for i in range(len(states))]
    nodes = [
        helper.make_node("Gather", ["arena", "rows"], ["whole"], axis=0),
        helper.make_node("Split", ["whole", "widths"], parts, axis=1),
    ]
    constants = {"widths": np.array([prod(state.shape) for state in states])}
    for i, state in enumerate(states):
        constants[f"shape{i}"] = np.array([-1, *state.shape])
        order = list(range(1, len(state.shape) + 1))
        order.insert(state.batch_axis, 0)
        nodes.append(helper.make_node("Reshape", [parts[i], f"shape{i}"], [f"whole{i}"]))
        nodes.append(helper.make_node("Transpose", [f"whole{i}"], [f"state{i}"], perm=order))
    given = [_floats("whole", ["P", "S"]), *(_floats(f"state{i}", _dims(state)) for i, state in enumerate(states))]
    return _model(nodes, [_floats("arena", ["R", "S"]), _ints("rows", ["P"])], given, constants)


def _pack(states: Sequence[GraphState]) -> bytes:
    """Builds (state0, state1 ... as the user's graph returns them, count [1]) -> (whole [count, S], finite [count, 1]).

    x - x is 0 if x is finite and NaN otherwise, and a sum that includes a NaN is NaN.
    """
    nodes = []
    constants = {"zero": np.array([0]), "axis": np.array([0]), "values": np.array([1])}
    for i, state in enumerate(states):
        constants[f"shape{i}"] = np.array([-1, prod(state.shape)])
        order = [axis for axis in range(len(state.shape) + 1) if axis != state.batch_axis]
        nodes.append(helper.make_node("Transpose", [f"state{i}"], [f"whole{i}"], perm=[state.batch_axis, *order]))
        nodes.append(helper.make_node("Reshape", [f"whole{i}", f"shape{i}"], [f"part{i}"]))
    nodes += [
        helper.make_node("Concat", [f"part{i}" for i in range(len(states))], ["all"], axis=1),
        helper.make_node("Slice", ["all", "zero", "count", "axis"], ["whole"]),
        helper.make_node("Sub", ["whole", "whole"], ["differences"]),
        helper.make_node("ReduceSum", ["differences", "values"], ["finite"], keepdims=1),
    ]
    taken = [_floats(f"state{i}", _dims(state)) for i, state in enumerate(states)]
    given = [_floats("whole", ["B", "S"]), _floats("finite", ["B", 1])]
    return _model(nodes, [*taken, _ints("count", [1])], given, constants)


def _put() -> bytes:
    """Builds (arena [R, S], rows [B, 1], whole [B, S]) -> after [R, S]."""
    node = helper.make_node("ScatterND", ["arena", "rows", "whole"], ["after"])
    taken = [_floats("arena", ["R", "S"]), _ints("rows", ["B", 1]), _floats("whole", ["B", "S"])]
    return _model([node], taken, [_floats("after", ["R", "S"])])


def _dims(state: GraphState) -> list[Any]:
    dims: list[Any] = list(state.shape)
    dims.insert(state.batch_axis, "P")
    return dims


def _floats(name: str, shape: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _ints(name: str, shape: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def _model(
    nodes: Sequence[Any], taken: Sequence[Any], given: Sequence[Any], constants: Mapping[str, Array] | None = None
) -> bytes:
    tensors = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    return GraphWriter(list(nodes), tensors).model("states", taken, given)
