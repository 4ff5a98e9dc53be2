"""The GPU engine: states stay on the device; each slice of a call copies indices and inputs up, and outputs down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellkeeper_service.domain.engine import Array, Computed, EngineLost, Rows
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import Config, RecurrentConfig

from .accuracy import relative_error
from .buckets import Bucket, Layout, shapes, sliced
from .cells import KernelCells
from .device import CaptureFailed, Device, OutOfDeviceMemory
from .staging import SliceViews, Staging, StagingPool

log = logging.getLogger(__name__)

STATE_COPY_BYTES = 32 * 1024 * 1024  # of states in one transfer, to bound the pinned memory
FLOAT_BYTES = 4
ROW_NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Slice:
    """A slice of a call. start: its first time step. up_at, down_at: where it begins in the staging's two buffers."""

    bucket: Bucket
    start: int
    up_at: int
    down_at: int

    def views(self, staging: Staging) -> SliceViews:
        return staging.views(self.bucket.layout, self.up_at, self.down_at)


class PendingCall:
    """A call in progress on the device."""

    def __init__(
        self, engine: CudaEngine, staging: Staging, slices: list[_Slice], batch: int, wanted: frozenset[str]
    ) -> None:
        self._engine = engine
        self._staging = staging
        self._slices = slices
        self._batch = batch
        self._wanted = wanted

    @property
    def done(self) -> bool:
        """Whether `finish` would not have to wait. Raises EngineLost."""
        with self._engine.entered():
            return self._staging.done.query()

    def finish(self) -> Computed:
        """Waits for the device, while other threads can run, and returns the results. Call it once, from any thread,
        with no other call of the engine at the same time. Raises EngineLost."""
        with self._engine.entered():
            self._staging.done.synchronize()
        batch = self._batch
        finite = np.ones(batch, np.bool_)
        parts: dict[str, list[Array]] = {name: [] for name in self._wanted}
        for piece in self._slices:
            views = piece.views(self._staging)
            finite &= views.finite[:batch] != 0
            for name, values in parts.items():
                values.append(views.outputs[name][:, :batch])
        # copied, because the next call reuses this memory
        outputs = {
            name: values[0].copy() if len(values) == 1 else np.concatenate(values) for name, values in parts.items()
        }
        self._engine.take_back(self._staging)
        return Computed(outputs, None if finite.all() else finite)


class CudaEngine:
    """Implements domain.engine.Engine for recurrent bundles on a device.

    The arena's rows are whole checkpoints: float32 [rows, state_bytes / 4]. A call is composed of buckets, whose
    graphs are captured when the arena is allocated (`reserve`); a bucket's rows beyond the batch are padding. All
    outputs are always computed, so that one graph serves whichever are wanted, and copied up to the last wanted one.

    Raises StartError if the device does not support the precision, EngineLost if it fails.
    """

    name = "cuda"
    one_session_a_call = False

    def __init__(self, bundle: Bundle, max_batch: int, device: Device, precision: Precision = "fp32") -> None:
        if not isinstance(bundle.config, RecurrentConfig):
            raise StartError(f"{bundle.path}: ONNX graphs run on onnxruntime, not on {device.name}")
        device.check_precision(precision)
        self.spec: ModelSpec = bundle.spec
        self.config: Config = bundle.config
        self.max_batch = max_batch
        self.initial_state = bundle.initial_state
        self.device = device.name
        self._device = device
        self._pool = StagingPool(device)
        self._buckets: dict[tuple[int, int], Bucket] = {}
        self._rows = 0
        self._capture_failed = False
        with device.entered():
            self._cells = KernelCells(bundle.config, bundle.tensors, device.torch_device, precision)
            self._arena = torch.empty(0, self._cells.row_width, device=device.torch_device)
            self._make_buffers()
        self._distance = 0.0
        self.settle(1, False, 0.0)
        self._distance = relative_error(self, bundle.config, bundle.tensors)
        self.settle(1, False, 0.0)

    @property
    def free_bytes(self) -> int | None:
        return self._device.free_bytes()

    def settle(self, min_batch: int, exact: bool, tolerance: float) -> None:
        """Applies what exactness.settle found. The tolerance is at least the distance from float64."""
        self.min_batch, self.exact, self.tolerance = min_batch, exact, max(tolerance, self._distance)
        self.numerics = f"cuda {self._cells.numerics} {self._device.versions} min_batch={min_batch}"

    def end_trial(self) -> None:
        """Does nothing: calls of the engine's own kernels have no limit."""

    def entered(self) -> AbstractContextManager[None]:
        """Returns the device's context, which every use of the device must enter."""
        return self._device.entered()

    def reserve(self, rows: int) -> None:
        if rows > self._arena.shape[0]:
            self._make_arena(max(rows, 2 * self.max_batch))
            self._make_buckets()
        self._rows = rows

    def write_states(self, rows: Rows, states: Array) -> None:
        """Writes whole states, with few transfers for any number of them."""
        self._check_rows(rows)
        values = np.ascontiguousarray(states).view("<f4")
        for start, numbers, staging, on_device in self._state_copies(rows):
            count = len(numbers)
            indices, floats = _state_views(staging.up, count, self._cells.row_width)
            indices.numpy()[:] = numbers
            floats.numpy()[:] = values[start : start + count]
            with self._device.entered():
                on_device.copy_(staging.up[: on_device.numel()], non_blocking=True)
                indices, floats = _state_views(on_device, count, self._cells.row_width)
                self._arena.index_copy_(0, indices, floats)
                staging.done.record()
                staging.done.synchronize()
            self._pool.give(staging)

    def read_states(self, rows: Rows) -> Array:
        """Reads whole states, with few transfers for any number of them."""
        self._check_rows(rows)
        result = np.empty((len(rows), self._cells.row_width), "<f4")
        for start, numbers, staging, on_device in self._state_copies(rows):
            count = len(numbers)
            _state_views(staging.up, count, self._cells.row_width)[0].numpy()[:] = numbers
            with self._device.entered():
                number_bytes = ROW_NUMBER_BYTES * count
                on_device[:number_bytes].copy_(staging.up[:number_bytes], non_blocking=True)
                indices, floats = _state_views(on_device, count, self._cells.row_width)
                torch.index_select(self._arena, 0, indices, out=floats)
                staging.down[: on_device.numel()].copy_(on_device, non_blocking=True)
                staging.done.record()
                staging.done.synchronize()
            result[start : start + count] = _state_views(staging.down, count, self._cells.row_width)[1].numpy()
            self._pool.give(staging)
        return result.view(np.uint8)

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        return self.begin(inputs, read, write, wanted).finish()

    def begin(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> PendingCall:
        """Begins `run`: starts the copies and graphs, which the device then executes on its own.

        Another call may begin before this one is finished; the device executes them in order. The arrays may be
        changed once this returns.
        """
        steps, batch = inputs.shape[:2]
        unknown = wanted - self.spec.output_names
        if unknown:
            raise ValueError(f"outputs: got {sorted(unknown)}, expected some of {sorted(self.spec.output_names)}")
        if not 1 <= batch <= self.max_batch or len(read) != batch or len(write) != batch:
            raise ValueError(
                f"batch: got {batch} inputs, {len(read)} rows to read and {len(write)} to write, expected the same "
                f"number of each, 1 to {self.max_batch}"
            )
        self._check_rows(read)
        self._check_rows(write)
        slices = self._slices(steps, batch)
        last = slices[-1]
        up_bytes = last.up_at + last.bucket.layout.up_bytes
        staging = self._pool.take(up_bytes, last.down_at + last.bucket.layout.down_bytes)
        for number, piece in enumerate(slices):
            _fill(piece, staging, inputs, write if number else read, write)
        with self._device.entered():
            for piece in slices:
                layout, down_bytes = piece.bucket.layout, piece.bucket.layout.wanted_bytes(wanted)
                source = staging.up[piece.up_at : piece.up_at + layout.up_bytes]
                self._up[: layout.up_bytes].copy_(source, non_blocking=True)
                piece.bucket.launch()
                target = staging.down[piece.down_at : piece.down_at + down_bytes]
                target.copy_(self._down[:down_bytes], non_blocking=True)
            staging.done.record()
        return PendingCall(self, staging, slices, batch, wanted)

    def bucket_launch(self, steps: int, batch: int) -> Callable[[], None]:
        """Returns the function that computes a bucket from its buffers' contents, for timing."""
        return self._buckets[steps, batch].launch

    def take_back(self, staging: Staging) -> None:
        """Takes back the staging of a finished call."""
        self._pool.give(staging)

    def _slices(self, steps: int, batch: int) -> list[_Slice]:
        slices = []
        start = up_at = down_at = 0
        for shape in sliced(steps, max(batch, min(self.min_batch, self.max_batch)), self.max_batch):
            bucket = self._buckets[shape]
            slices.append(_Slice(bucket, start, up_at, down_at))
            start += bucket.steps
            up_at += bucket.layout.up_bytes
            down_at += bucket.layout.down_bytes
        return slices

    def _check_rows(self, rows: Rows) -> None:
        """Raises IndexError for rows out of range, which the kernels would read and write without a check."""
        if len(rows) and (rows.min() < 0 or rows.max() >= self._rows):
            raise IndexError(f"rows {rows.min()}..{rows.max()}, the arena has {self._rows}")

    def _make_buffers(self) -> None:
        """Allocates the buffers that all buckets share, since their launches run one after another."""
        layouts = [Layout(self.spec, *shape) for shape in shapes(self.max_batch)]
        place = self._device.torch_device
        self._up = torch.zeros(max(layout.up_bytes for layout in layouts), dtype=torch.uint8, device=place)
        self._down = torch.zeros(max(layout.down_bytes for layout in layouts), dtype=torch.uint8, device=place)

    def _make_arena(self, rows: int) -> None:
        self._buckets = {}
        width, place = self._cells.row_width, self._device.torch_device
        needed_bytes = rows * width * FLOAT_BYTES
        try:
            with self._device.entered():
                self._arena = torch.empty(0, width, device=place)  # first frees the old arena's memory
                self._device.release()
            free_bytes = self._device.free_bytes()
            if free_bytes is not None and needed_bytes > free_bytes:
                raise OutOfDeviceMemory(f"{self.device} has no room")
            with self._device.entered():
                self._arena = torch.zeros(rows, width, device=place)
        except OutOfDeviceMemory as error:
            free_bytes = self._device.free_bytes()
            free = "" if free_bytes is None else f", of which {_mib(free_bytes)} MiB are free"
            raise StartError(
                f"arena_mib: {rows} rows of states of {self.spec.name} take {_mib(needed_bytes)} MiB on "
                f"{self.device}{free}; lower --arena-mib or free memory of the device"
            ) from error

    def _make_buckets(self) -> None:
        """Compiles the kernels and captures the graphs. All rows of these launches are padding, so no state changes."""
        try:
            with self._device.entered():
                for steps, batch in shapes(self.max_batch):
                    self._buckets[steps, batch] = self._make_bucket(steps, batch)
        except EngineLost as error:
            raise StartError(
                f"model {self.spec.name}: cannot create the graphs of its batch sizes: {error}; lower --max-batch or "
                "--arena-mib, or free memory of the device"
            ) from error

    def _make_bucket(self, steps: int, batch: int) -> Bucket:
        layout = Layout(self.spec, steps, batch)
        buffers, scratch = layout.buffers(self._up, self._down), self._cells.scratch(steps, batch)
        arena, cells = self._arena, self._cells
        buffers.read.fill_(-1)
        buffers.write.fill_(-1)

        def launch() -> None:
            cells.launch(arena, buffers, scratch)

        if not self._buckets:
            self._device.compile(launch)  # one binary of a kernel serves every bucket
        if not self._capture_failed:
            try:
                return Bucket(steps, batch, layout, self._device.capture(launch))
            except CaptureFailed as error:
                self._capture_failed = True
                log.warning(
                    "model %s: CUDA graphs cannot be captured (%s); kernels are launched one by one, which is slower",
                    self.spec.name,
                    error,
                )
        return Bucket(steps, batch, layout, launch)

    def _state_copies(self, rows: Rows) -> Iterator[tuple[int, Rows, Staging, Tensor]]:
        """Yields the parts of `rows` for each transfer: start, row numbers, staging, and as much device memory."""
        a_row_bytes = ROW_NUMBER_BYTES + FLOAT_BYTES * self._cells.row_width
        most = max(STATE_COPY_BYTES // a_row_bytes, 1)
        for start in range(0, len(rows), most):
            numbers = rows[start : start + most]
            size_bytes = a_row_bytes * len(numbers)
            staging = self._pool.take(size_bytes, size_bytes)
            with self._device.entered():
                on_device = torch.empty(size_bytes, dtype=torch.uint8, device=self._device.torch_device)
            yield start, numbers, staging, on_device


def _fill(piece: _Slice, staging: Staging, inputs: Array, read: Rows, write: Rows) -> None:
    """Packs a slice. Rows beyond the batch are marked as padding, and the kernels never read their inputs."""
    views, batch = piece.views(staging), len(read)
    for numbers, rows in ((views.read, read), (views.write, write)):
        numbers[:batch] = rows
        numbers[batch:] = -1
    views.inputs[:, :batch] = inputs[piece.start : piece.start + piece.bucket.steps]


def _state_views(packed: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns views of packed row numbers, int64 [count], and of the states after them, float32 [count, width]."""
    numbers = packed[: ROW_NUMBER_BYTES * count].view(torch.int64)
    floats = packed[ROW_NUMBER_BYTES * count :][: FLOAT_BYTES * count * width].view(torch.float32)
    return numbers, floats.view(count, width)


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // 2**20)
