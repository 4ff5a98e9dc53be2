"""import_torch: from a module in a script, or a file of weights, to a bundle."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellkeeper_service.model.config import Missing
from cellkeeper_service.model.feedback import Sources

from ..drawn import draw_inputs
from ..imported import Imported, Report, Target, check_target, write_imported
from ..parity import MAX_BATCH, TOLERANCE
from ..processing import Processed, checked
from ..proof import Source
from ..refusal import ImportRefused, NotRead
from .modules import TRACED, changed_layer, copied, refuse_nan, refuse_quantized, refuse_scripted, unwrapped
from .read import ReadModel, read_model

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram


_EXPORTED = ", or export one time step with torch.export, states as arguments, and pass that"
HALF = ("float16", "bfloat16")


def import_torch(
    model: nn.Module | Sequence[nn.Module] | Mapping[str, Tensor] | ExportedProgram | Path | str,
    folder: Path | str,
    *,
    layers: str | None = None,
    name: str | None = None,
    normalization: object = None,
    missing: Missing | None = None,
    output: object = (),
    feedback: Sources | None = None,
    feature_names: object = None,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    example: object = None,
    states: Any = (),
    layout: str | None = None,
    vocabulary: int | Mapping[str, int] = 0,
    tolerance: float = TOLERANCE,
    max_batch: int = MAX_BATCH,
    report: Report = print,
) -> Imported:
    """Writes the bundle `folder`, which must not exist yet, and compares it with the modules on random sequences.

    model: one of
        an nn.LSTM, nn.GRU or nn.RNN;
        a list of modules in the order of computation (Embedding, recurrent layers or cells, Linear, activations,
        Dropout);
        any other module: its children, in the order of their registration, must compute what its forward computes;
        weights: a state_dict, a safetensors file, or a torch.save file, read with weights_only. They need `layers`;
        a torch.export program (x, *states) -> (y, *states) with a dynamic batch axis. It needs `states`, their names
        in that order, and `vocabulary` if x is token ids. It is converted through ONNX (needs onnxscript), and its x
        and y are in their own units.
    layers: for weights, the kinds of the layers and the prefixes of their tensors' names in the order of computation,
    such as "embedding=emb lstm=rnn dense=fc relu dense=out".
    example: x as the module's forward takes it, [B, F], [T, B, F] or [B, T, F] (token ids without F); for several
    inputs a tuple, or a dict by argument name, with a vocabulary by name for integer inputs. With an example, a module
    whose children do not compute what its forward does is traced (needs onnxscript): its recurrent layers are watched
    or, with `states`, its forward takes the states after x and returns them after its outputs.
    states: of a new session, as the forward takes them: a tensor, several, a tuple of them, or a dict by argument name.
    layout: of x and the outputs, "step", "time_first" or "batch_first", if the recurrent layers do not determine it.
    vocabulary: token ids are below it.
    normalization, missing, output: as in config.json. The model sees normalised inputs; clients see their own units.
    normalization and output may be fitted scalers (scalers.py), output one that was fitted on the targets.
    feature_names: a list, or a DataFrame with such columns; by default the names that the scaler was fitted on.
    feedback: as in config.json, for forecasts: for each feature, the index of the prediction it becomes, or "known".
    initial_state: of a new session: h or (h, c), [layers, width] each.
    name: the model's; by default the folder's.
    tolerance: the largest permitted difference, relative to the largest output.

    Raises ImportRefused with a one-line message that says where; nothing is left behind then.
    """
    name = check_target(folder, name)
    processing = checked(normalization, missing, output, feature_names)
    target = Target(Path(folder), name, processing, feedback, tolerance, max_batch, report)
    model = unwrapped(model)
    if not isinstance(model, str | Path) and importlib.util.find_spec("torch") is None:
        raise ImportRefused(
            "model",
            f"got {type(model).__name__}: needs torch, which is not installed; install cellkeeper[torch], or pass a "
            "safetensors file",
        )
    stated = not isinstance(states, tuple | list | Mapping) or bool(states)
    if type(model).__name__ == "ExportedProgram" and type(model).__module__.startswith("torch.export"):
        from .program import Traced, import_traced

        if normalization is not None or processing.output or initial_state is not None or layers is not None:
            raise ImportRefused(
                "model", "got a torch.export program with normalization, output, initial_state or layers"
            )
        named = tuple(states) if all(isinstance(state, str) for state in states) else ()
        program: Any = model
        return import_traced(Traced(program, named), target, "ExportedProgram", vocabulary)
    if example is None and (stated or vocabulary or layout is not None):
        file = "; of a torch.export archive, pass torch.export.load(file)" if isinstance(model, str | Path) else ""
        raise ImportRefused(
            "states, vocabulary, layout",
            f"got {states}, {vocabulary}, {layout}, expected only for a torch.export program or with example{file}",
        )
    read = None
    several = isinstance(example, tuple | list | Mapping)  # a model that is read has one input only
    if example is None or not (stated or several):
        try:
            tell = report if example is None else None
            first = None if layout in (None, "step") else layout == "batch_first"
            read = read_model(model, layers, initial_state, processing, name, tell, first)
        except ImportRefused as error:
            if isinstance(error, NotRead) and example is None:
                alone = hasattr(model, "named_modules")
                instead = f"{TRACED}{_EXPORTED}" if alone else f"make one module of the list, and {TRACED}"
                raise ImportRefused(error.place, f"{error.reason}; {instead}") from error
            if example is None:
                raise
    if read is not None:
        source = Processed(read.source, processing)
        imported = _write_read(model, read, target, source, example, layout, vocabulary)
    elif initial_state is not None:
        raise ImportRefused("initial_state", "got one for a module that is traced, expected states")
    else:
        imported = _import_module(model, target, example, states if stated else None, layout, vocabulary)
    _report_dtypes(model, report)
    return imported


def _write_read(
    model: Any,
    read: ReadModel,
    target: Target,
    source: Source,
    example: object,
    layout: str | None,
    vocabulary: int | Mapping[str, int],
) -> Imported:
    """Writes a model that was read as layers.

    If its outputs are others, and one of its layers computes something of its own, the model is traced if there is an
    example, or that layer is named.
    """
    try:
        return write_imported(target, read.lowered, source, draw_inputs(read.stack), read.place)
    except ImportRefused as error:
        changed = changed_layer(model)
        if changed is None:
            raise
        if example is not None:
            return _import_module(model, target, example, None, layout, vocabulary)
        raise ImportRefused(
            changed,
            "has a hook or a forward of its own, with which it computes something other than its class does; remove "
            f"it, or make one module of all layers and {TRACED} ({error.reason.partition(':')[0]})",
        ) from error


def _report_dtypes(model: Any, report: Report) -> None:
    """Reports weights in half precision: the import computes with them in float32."""
    if isinstance(model, Mapping):
        tensors = list(model.values())
    else:
        modules = model if isinstance(model, Sequence) and not isinstance(model, str) else [model]
        tensors = [value for one in modules if hasattr(one, "parameters") for value in one.parameters()]
    found = {str(getattr(tensor, "dtype", "")).removeprefix("torch.") for tensor in tensors} & {*HALF}
    for dtype in sorted(found):
        report(f"dtype: the weights are {dtype}, but are served in float32; results in {dtype} differ by its rounding")


def _import_module(
    model: Any, target: Target, example: object, states: object, layout: str | None, vocabulary: int | Mapping[str, int]
) -> Imported:
    """Imports a module as its forward computes, by tracing it."""
    place = type(model).__name__
    if not hasattr(model, "named_modules"):
        raise ImportRefused(
            "example", f"got one with {place}, expected it with a torch module only; load weights into the module"
        )
    from .program import import_traced
    from .trace import trace, whole_sequence_layers

    refuse_scripted(model)
    refuse_quantized(model)
    refuse_nan(model)
    module = copied(place, model)
    traced = trace(module, example, states, layout, target.processing)
    try:
        return import_traced(traced, target, place, vocabulary)
    except ImportRefused as error:
        raise ImportRefused(error.place, f"{whole_sequence_layers(module)}{error.reason}") from error
