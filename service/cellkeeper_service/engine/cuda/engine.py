"""The GPU engine: states stay on the device; each slice of a call copies indices and inputs up, and outputs down."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellkeeper_service.domain.engine import Array, Computed, EngineLost, Rows
from cellkeeper_service.engine.arena import FLOAT_BYTES
from cellkeeper_service.engine.base import BundleEngine
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import RecurrentConfig

from .accuracy import relative_error
from .buckets import Bucket, Layout, shapes, sliced
from .cells import KernelCells
from .device import CaptureFailed, CudaDevice, OutOfDeviceMemory
from .staging import SliceViews, Staging

log = logging.getLogger(__name__)

STATE_COPY_BYTES = 32 * 1024 * 1024  # of states in one transfer, to bound the pinned memory
ROW_NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Slice:
    """A slice of a call. start: its first time step. up_at, down_at: where it begins in the staging's two buffers."""

    bucket: Bucket
    start: int
    up_at: int
    down_at: int


class CudaEngine(BundleEngine):
    """The engine for recurrent bundles on a device.

    The arena's rows are whole checkpoints: float32 [rows, state_bytes / 4]. A call is composed of buckets, whose
    graphs are captured when the arena is allocated (`reserve`); a bucket's rows beyond the batch are padding. All
    outputs are always computed, so that one graph serves whichever are wanted, and copied up to the last wanted one.

    Raises StartError if the device does not support the precision, EngineLost if it fails.
    """

    name = "cuda"

    def __init__(self, bundle: Bundle, max_batch: int, device: CudaDevice, precision: Precision = "fp32") -> None:
        if not isinstance(bundle.config, RecurrentConfig):
            raise StartError(f"{bundle.path}: ONNX graphs run on onnxruntime, not on {device.name}")
        device.check_precision(precision)
        super().__init__(bundle, max_batch)
        self.device = device.name
        self._device = device
        self._staging = Staging(device)
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
    def free_bytes(self) -> int:
        return self._device.free_bytes()

    @property
    def captured(self) -> bool:
        """True unless a graph could not be captured, so that kernels are launched one by one."""
        return not self._capture_failed

    def settle(self, min_batch: int, exact: bool, tolerance: float) -> None:
        """Applies the settings. The tolerance is at least the distance from float64."""
        super().settle(min_batch, exact, max(tolerance, self._distance))

    def _numerics(self) -> str:
        return f"cuda {self._cells.numerics} {self._device.versions} min_batch={self.min_batch}"

    def reserve(self, rows: int) -> None:
        if rows > self._arena.shape[0]:
            self._make_arena(max(rows, 2 * self.max_batch))
            self._make_buckets()
        self._rows = rows

    def write_states(self, rows: Rows, states: Array) -> None:
        """Writes whole states, with few transfers for any number of them."""
        self._check_rows(rows)
        values = np.ascontiguousarray(states).view("<f4")
        width = self._cells.row_width
        for start, numbers, on_device in self._state_copies(rows):
            count = len(numbers)
            indices, floats = _state_views(self._staging.up, count, width)
            indices.numpy()[:] = numbers
            floats.numpy()[:] = values[start : start + count]
            with self._device.entered():
                on_device.copy_(self._staging.up[: on_device.numel()], non_blocking=True)
                indices, floats = _state_views(on_device, count, width)
                self._arena.index_copy_(0, indices, floats)
                self._device.synchronize()

    def read_states(self, rows: Rows) -> Array:
        """Reads whole states, with few transfers for any number of them."""
        self._check_rows(rows)
        width = self._cells.row_width
        result = np.empty((len(rows), width), "<f4")
        for start, numbers, on_device in self._state_copies(rows):
            count = len(numbers)
            _state_views(self._staging.up, count, width)[0].numpy()[:] = numbers
            with self._device.entered():
                number_bytes = ROW_NUMBER_BYTES * count
                on_device[:number_bytes].copy_(self._staging.up[:number_bytes], non_blocking=True)
                indices, floats = _state_views(on_device, count, width)
                torch.index_select(self._arena, 0, indices, out=floats)
                self._staging.down[: on_device.numel()].copy_(on_device, non_blocking=True)
                self._device.synchronize()
            result[start : start + count] = _state_views(self._staging.down, count, width)[1].numpy()
        return result.view(np.uint8)

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        steps, batch = inputs.shape[:2]
        self._check_wanted(wanted)
        if not 1 <= batch <= self.max_batch or len(read) != batch or len(write) != batch:
            raise ValueError(
                f"batch: got {batch} inputs, {len(read)} rows to read and {len(write)} to write, expected the same "
                f"number of each, 1 to {self.max_batch}"
            )
        self._check_rows(read)
        self._check_rows(write)
        slices = self._slices(steps, batch)
        last, staging = slices[-1], self._staging
        staging.grow(last.up_at + last.bucket.layout.up_bytes, last.down_at + last.bucket.layout.down_bytes)
        views = [staging.views(piece.bucket.layout, piece.up_at, piece.down_at) for piece in slices]
        for number, (piece, view) in enumerate(zip(slices, views, strict=True)):
            part = inputs[piece.start : piece.start + piece.bucket.steps]
            _fill(view, part, write if number else read, write)
        # what the call returns is allocated before the kernels write states: see Engine.run
        finite = np.ones(batch, np.bool_)
        outputs: dict[str, Array] = {}
        for name in wanted:
            values = views[0].outputs[name]
            outputs[name] = np.empty((steps, batch, *values.shape[2:]), values.dtype)
        with self._device.entered():
            for piece in slices:
                layout, down_bytes = piece.bucket.layout, piece.bucket.layout.wanted_bytes(wanted)
                source = staging.up[piece.up_at : piece.up_at + layout.up_bytes]
                self._up[: layout.up_bytes].copy_(source, non_blocking=True)
                piece.bucket.launch()
                target = staging.down[piece.down_at : piece.down_at + down_bytes]
                target.copy_(self._down[:down_bytes], non_blocking=True)
            self._device.synchronize()
        for piece, view in zip(slices, views, strict=True):
            np.logical_and(finite, view.finite[:batch], out=finite)
            for name, values in outputs.items():  # copied, because the next call reuses the staging's memory
                values[piece.start : piece.start + piece.bucket.steps] = view.outputs[name][:, :batch]
        return Computed(outputs, None if finite.all() else finite)

    def bucket_launch(self, steps: int, batch: int) -> Callable[[], None]:
        """Returns the function that computes a bucket from its buffers' contents, for timing."""
        return self._buckets[steps, batch].launch

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
            if needed_bytes > self._device.free_bytes():
                raise OutOfDeviceMemory(f"{self.device} has no room")
            with self._device.entered():
                self._arena = torch.zeros(rows, width, device=place)
        except OutOfDeviceMemory as error:
            raise StartError(
                f"arena_mib: {rows} rows of states of {self.spec.name} take {_mib(needed_bytes)} MiB on "
                f"{self.device}, of which {_mib(self._device.free_bytes())} MiB are free; lower --arena-mib or free "
                "memory of the device"
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
                return Bucket(steps, batch, layout, scratch, self._device.capture(launch))
            except CaptureFailed as error:
                self._capture_failed = True
                log.warning(
                    "model %s: CUDA graphs cannot be captured (%s); kernels are launched one by one, which is slower",
                    self.spec.name,
                    error,
                )
        return Bucket(steps, batch, layout, scratch, launch)

    def _state_copies(self, rows: Rows) -> Iterator[tuple[int, Rows, Tensor]]:
        """Yields the parts of `rows` for each transfer: start, row numbers, and device memory for them. The staging has
        as much room."""
        a_row_bytes = ROW_NUMBER_BYTES + FLOAT_BYTES * self._cells.row_width
        most = max(STATE_COPY_BYTES // a_row_bytes, 1)
        for start in range(0, len(rows), most):
            numbers = rows[start : start + most]
            size_bytes = a_row_bytes * len(numbers)
            self._staging.grow(size_bytes, size_bytes)
            with self._device.entered():
                on_device = torch.empty(size_bytes, dtype=torch.uint8, device=self._device.torch_device)
            yield start, numbers, on_device


def _fill(views: SliceViews, inputs: Array, read: Rows, write: Rows) -> None:
    """Packs a slice. Rows beyond the batch are marked as padding, and the kernels never read their inputs."""
    batch = len(read)
    for numbers, rows in ((views.read, read), (views.write, write)):
        numbers[:batch] = rows
        numbers[batch:] = -1
    views.inputs[:, :batch] = inputs


def _state_views(packed: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns views of packed row numbers, int64 [count], and of the states after them, float32 [count, width]."""
    numbers = packed[: ROW_NUMBER_BYTES * count].view(torch.int64)
    floats = packed[ROW_NUMBER_BYTES * count :][: FLOAT_BYTES * count * width].view(torch.float32)
    return numbers, floats.view(count, width)


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // 2**20)
