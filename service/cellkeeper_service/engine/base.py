"""What the engines have in common."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Engine, Rows
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import Config
from cellkeeper_service.model.tensors import cell_states

from .arena import FLOAT_BYTES, Arena
from .inputs import Preprocessing


class BundleEngine(Engine):
    """An engine that pads calls of fewer than `min_batch` sessions to it with rows of zeros. The trial (exactness.py)
    finds its settings.

    one_session_a_call: each call of its model has one session only, so that a session's bits are the same in any batch
    by construction, and only the chunking remains to be tested.
    shared_condition: the node of its graph whose condition the sessions of a call decide together, so that one may
    change what another gets; "" if there is none.
    """

    device = "cpu"
    one_session_a_call = False
    shared_condition = ""

    def __init__(self, bundle: Bundle, max_batch: int) -> None:
        self.spec: ModelSpec = bundle.spec
        self.config: Config = bundle.config
        self.max_batch = max_batch
        self.initial_state = bundle.initial_state

    def settle(self, min_batch: int, exact: bool, tolerance: float) -> None:
        """Pads calls of fewer than `min_batch` sessions from now on; `exact` and `tolerance` are only recorded."""
        self.min_batch, self.exact, self.tolerance = min_batch, exact, tolerance
        self.numerics = self._numerics()

    def end_trial(self) -> None:
        """Ends the trial: limits that apply only to it are lifted. By default there are none."""

    @property
    def free_bytes(self) -> int | None:
        return None

    @abstractmethod
    def _numerics(self) -> str:
        """Returns the text of `numerics` for the settings as they are."""

    def _check_wanted(self, wanted: frozenset[str]) -> None:
        unknown = wanted - self.spec.output_names
        if unknown:
            raise ValueError(f"outputs: got {sorted(unknown)}, expected some of {sorted(self.spec.output_names)}")


class HostEngine(BundleEngine):
    """An engine for recurrent bundles on the CPU. The arena's leaves are the states of the cells and, if missing values
    are held, the last inputs."""

    def __init__(self, bundle: Bundle, max_batch: int, threads: int) -> None:
        super().__init__(bundle, max_batch)
        self._threads = threads
        self._preprocessing = Preprocessing(bundle.config)
        self._state_width = sum(state.nbytes for state in cell_states(bundle.config)) // FLOAT_BYTES
        self._held_width = self.spec.input.shape[0] if self._preprocessing.holds else 0
        widths = [self._state_width, self._held_width] if self._preprocessing.holds else [self._state_width]
        self._arena = Arena([FLOAT_BYTES * width for width in widths])

    def reserve(self, rows: int) -> None:
        self._arena.reserve(rows)

    def write_states(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        self._arena.write(rows, states)

    def read_states(self, rows: Rows) -> NDArray[np.uint8]:
        return self._arena.read(rows)
