"""Keeps the states of a user's graph between calls, in host memory or in the device's memory.

Either way, a row has the layout of a checkpoint: the tensors one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cellkeeper_service.domain.engine import Array, EngineLost, Rows
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import GraphState

from .arena import FLOAT_BYTES, Arena, whole_rows
from .graph_writer import GraphWriter, floats, integers
from .onnx_device import HOST, GraphDevice, call
from .ort import open_session


class HostStates(Arena):
    """An arena of states in host memory. P in shapes is the size of the padded batch, P >= B."""

    def __init__(self, states: Sequence[GraphState]) -> None:
        self._states = states
        self._sizes = [prod(state.shape) for state in states]
        self._dtypes = [np.dtype(state.dtype).newbyteorder("<") for state in states]
        super().__init__([size * dtype.itemsize for size, dtype in zip(self._sizes, self._dtypes, strict=True)])
        # np.moveaxis would find out the orders of the axes at each call
        self._for_graph, self._for_rows = [*map(_for_graph, states)], [*map(_for_rows, states)]

    def take(self, rows: Rows, padded: int) -> dict[str, Any]:
        """Returns the states of rows [B] as the graph takes them, by its input names, padded with zeros to P. Raises
        IndexError for a row out of range."""
        leaves = [np.zeros((padded, size), dtype) for size, dtype in zip(self._sizes, self._dtypes, strict=True)]
        self.gather(rows, [whole_rows(leaf[: len(rows)]) for leaf in leaves])
        return {
            state.input: np.ascontiguousarray(leaf.reshape(-1, *state.shape).transpose(axes))
            for state, leaf, axes in zip(self._states, leaves, self._for_graph, strict=True)
        }

    def join(self, results: Sequence[Any], count: int) -> tuple[Any, Array]:
        """Returns the first `count` of P states from the graph's results, which are in the order of its states: as
        `put` takes them, and as floats [count, N], in which a row is finite if that state is."""
        leaves = []
        for size, dtype, axes, result in zip(self._sizes, self._dtypes, self._for_rows, results, strict=True):
            leaves.append(np.ascontiguousarray(result.transpose(axes)[:count].reshape(-1, size), dtype))
        of_floats = [leaf for leaf in leaves if leaf.dtype.kind == "f"]
        return leaves, np.concatenate(of_floats, axis=1) if of_floats else np.zeros((count, 0), np.float32)

    def put(self, rows: Rows, joined: Any) -> None:
        """Stores states that `join` returned in rows [B]."""
        self.scatter(rows, [whole_rows(leaf) for leaf in joined])


class DeviceStates:
    """An arena of float32 states in the device's memory, with the methods of HostStates: only row numbers and
    finiteness are copied.

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
        self.reserve(0)

    def reserve(self, rows: int) -> None:
        """Allocates so many rows; their values are undefined. Raises StartError if there is no room."""
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
        self.put(rows, np.ascontiguousarray(states).view("<f4"))

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        self._check_rows(rows)
        feeds = {"arena": self._arena, "rows": rows.astype(np.int64)}
        (taken,) = call(self._take, self._device, feeds, {"whole": HOST})
        return np.ascontiguousarray(taken, "<f4").view(np.uint8)

    def take(self, rows: Rows, padded: int) -> dict[str, Any]:
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
        feeds = {"arena": self._arena, "rows": rows.astype(np.int64)[:, None], "whole": joined}
        call(self._put, self._device, feeds, {"after": self._arena})

    def _new_arena(self, rows: int) -> Any:
        """Makes an arena, and returns memory that the session no longer uses to the device."""
        feeds = {"shape": np.array([rows, self._row_width])}
        (arena,) = call(_Shrinking(self._make, self._device), self._device, feeds, {"arena": self._device})
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


GraphStates = HostStates | DeviceStates


def _for_graph(state: GraphState) -> list[int]:
    """Returns the order of the axes in which the graph takes a state [P, ...]."""
    axes = list(range(1, len(state.shape) + 1))
    return [*axes[: state.batch_axis], 0, *axes[state.batch_axis :]]


def _for_rows(state: GraphState) -> list[int]:
    """Returns the order of the axes that makes [P, ...] of a state that the graph returns; the inverse of the other."""
    return [state.batch_axis, *(axis for axis in range(len(state.shape) + 1) if axis != state.batch_axis)]


def _make() -> bytes:
    """Builds (shape [2]) -> arena [R, S]."""
    writer = GraphWriter()
    writer.node("ConstantOfShape", ["shape"], "arena", value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    return writer.model("states", [integers("shape", 2)], [floats("arena", "R", "S")])


def _take(states: Sequence[GraphState]) -> bytes:
    """Builds (arena [R, S], rows [P]) -> (whole [P, S], state0, state1 ... as the user's graph takes them)."""
    writer = GraphWriter()
    parts = [f"part{i}" for i in range(len(states))]
    widths = writer.axes(*(prod(state.shape) for state in states))
    writer.node("Gather", ["arena", "rows"], "whole", axis=0)
    writer.nodes.append(helper.make_node("Split", ["whole", widths], parts, axis=1))
    for i, state in enumerate(states):
        shaped = writer.node("Reshape", [parts[i], writer.axes(-1, *state.shape)])
        writer.node("Transpose", [shaped], f"state{i}", perm=_for_graph(state))
    return writer.model(
        "states", [floats("arena", "R", "S"), integers("rows", "P")], [floats("whole", "P", "S"), *_values(states)]
    )


def _pack(states: Sequence[GraphState]) -> bytes:
    """Builds (state0, state1 ... as the user's graph returns them, count [1]) -> (whole [count, S], finite [count, 1]).

    x - x is 0 if x is finite and NaN otherwise, and a sum that includes a NaN is NaN.
    """
    writer, parts = GraphWriter(), []
    for i, state in enumerate(states):
        turned = writer.node("Transpose", [f"state{i}"], perm=_for_rows(state))
        parts.append(writer.node("Reshape", [turned, writer.axes(-1, prod(state.shape))]))
    every = writer.node("Concat", parts, axis=1)
    writer.node("Slice", [every, writer.axes(0), "count", writer.axes(0)], "whole")
    writer.node("ReduceSum", [writer.node("Sub", ["whole", "whole"]), writer.axes(1)], "finite", keepdims=1)
    return writer.model(
        "states", [*_values(states), integers("count", 1)], [floats("whole", "B", "S"), floats("finite", "B", 1)]
    )


def _put() -> bytes:
    """Builds (arena [R, S], rows [B, 1], whole [B, S]) -> after [R, S]."""
    writer = GraphWriter()
    writer.node("ScatterND", ["arena", "rows", "whole"], "after")
    taken = [floats("arena", "R", "S"), integers("rows", "B", 1), floats("whole", "B", "S")]
    return writer.model("states", taken, [floats("after", "R", "S")])


def _values(states: Sequence[GraphState]) -> list[Any]:
    """Returns state0, state1 ... as the user's graph has them."""
    return [
        floats(f"state{i}", *state.shape[: state.batch_axis], "P", *state.shape[state.batch_axis :])
        for i, state in enumerate(states)
    ]
