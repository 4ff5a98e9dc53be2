"""The end of every import: write the bundle next to its target, compare it, and move it there, or leave nothing."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cellkeeper_service.engine.exactness import TRIAL_CALL_MS
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle, read_bundle
from cellkeeper_service.model.config import Config, GraphConfig, Tokens
from cellkeeper_service.model.feedback import Sources
from cellkeeper_service.model.file_mode import file_mode
from cellkeeper_service.model.named_inputs import NamedInputs
from cellkeeper_service.model.write import write_bundle

from .lower import Lowered
from .parity import Parity, compare
from .processing import Processing
from .proof import Drawn, Source
from .refusal import ImportRefused

Report = Callable[[str], object]


@dataclass(frozen=True)
class Imported:
    """A bundle that was written, and how it compares with its source model."""

    bundle: Bundle
    parity: Parity

    def __str__(self) -> str:
        config = self.bundle.config
        return f"{self.bundle.path}: model {config.name}, {describe(config)}\n{self.parity}"


@dataclass(frozen=True)
class Target:
    """What to write, whatever it is read from.

    folder: of the bundle. name: of the model. processing: around the model.
    feedback: as in config.json. tolerance: the largest permitted difference, relative.
    report: gets what is to be told. trial_call_ms: the longest permitted call of a graph during the trials.
    free_batch: the caller asked for calls with several sessions, so their independence is theirs to know where neither
    operators nor trials show it.
    """

    folder: Path
    name: str
    processing: Processing
    feedback: Sources | None
    tolerance: float
    max_batch: int
    report: Report
    trial_call_ms: int = TRIAL_CALL_MS
    free_batch: bool = False


def describe(config: Config) -> str:
    """Describes a model in one line, for people."""
    if isinstance(config.input, Tokens):
        takes = f"token ids below {config.input.vocabulary}"
    elif isinstance(config.input, NamedInputs):
        takes = " and ".join(f"{one.name} {one.dtype}{list(one.shape)}" for one in config.input.inputs)
    elif config.input.shape:
        takes = f"{list(config.input.shape)} features"
    else:
        takes = f"{config.input.size} features"
    if isinstance(config, GraphConfig):
        calls = ", one session a call" if config.one_session_a_call else ""
        return f"an ONNX graph with the states {', '.join(state.name for state in config.states)}{calls}; takes {takes}"
    return f"{config.cell} {config.num_layers}x{config.hidden_size}; takes {takes}, gives {config.output_size} values"


def check_target(folder: Path | str, name: str | None) -> str:
    """Returns the model's name. Checks the target before any work is done. Raises ImportRefused."""
    folder = Path(folder)
    try:
        if file_mode(folder, follow_links=False):
            raise ImportRefused(str(folder), "exists; remove it first or choose another name")
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        raise ImportRefused(str(folder), f"cannot be written ({error})") from error
    name = folder.name if name is None else name
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise ImportRefused("name", f"got {str(name)[:100]!r}, expected a string of 1 to 100 characters")
    return name


def write_imported(target: Target, lowered: Lowered, source: Source, drawn: Drawn, place: str) -> Imported:
    """Writes, compares, moves and reports the bundle.

    Raises ImportRefused if the bundle cannot be served, or differs by more than the tolerance.
    """
    folder, tolerance = target.folder, target.tolerance
    if not isinstance(tolerance, int | float) or not tolerance > 0:
        raise ImportRefused(
            "tolerance", f"got {tolerance!r}, expected a number above 0, relative to the largest output"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ImportRefused(str(folder), f"cannot be written ({error.strerror})") from error
    try:
        config = replace(lowered.config, feedback=target.feedback, feature_names=target.processing.feature_names)
        bundle = write_bundle(partial / "bundle", config, lowered.tensors, graph=lowered.graph)
        parity = compare(bundle, source, drawn, target.max_batch, target.trial_call_ms, tolerance)
        worst = max(parity.relative, parity.relative_scaled)
        if not worst <= tolerance:
            raise ImportRefused(
                place,
                f"served values differ from {parity.source} by {worst:.2e} of the largest output, expected at most "
                f"{tolerance:.0e}: {parity.where}",
            )
        if parity.shared_condition and not target.free_batch:
            raise ImportRefused(
                place,
                f"node {parity.shared_condition} has a condition that the sessions of a call decide together, so one "
                "may change what another gets; pass batch one (--batch one): one session a call, or batch free "
                "(--batch free) if you know that each session gets the same either way",
            )
        bundle.path.rename(folder)
        imported = Imported(read_bundle(folder), parity)
    except ImportRefused:
        raise
    except StartError as error:
        raise ImportRefused(place, _without(partial, str(error))) from error
    except TypeError as error:  # from json: an argument that config.json cannot represent
        raise ImportRefused(
            place, f"config.json cannot hold it ({error}); pass plain numbers, strings and lists"
        ) from error
    except OSError as error:
        raise ImportRefused(str(folder), f"cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    target.report(str(imported))
    return imported


def _without(partial: Path, text: str) -> str:
    """Removes the temporary folder from the text; it is gone by the time anybody reads it."""
    return re.sub(rf"{re.escape(str(partial))}/(bundle|\.bundle\.[^/]*)/", "", text)
