"""import_torch: from a module in a script, or a file of weights, to a bundle."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.config import Missing
from cellkeeper_service.model.feedback import Sources

from ..drawn import normalization_of, random_sequences, rounding, scaled_as, special_sequences
from ..files import read_state_dict, tensors_of
from ..landing import Imported, Report, check_target, land
from ..lower import Lowered, lower
from ..parity import MAX_BATCH, TOLERANCE
from ..processing import Float64Source, Processed, Processing, checked
from ..proof import Source
from ..refusal import ImportRefused
from ..stack import Array, Layer, LayerNorm, Recurrent, Stack
from .build import build_modules
from .forward import TRACED, compare_forward
from .modules import ModuleChain, copied, flatten, module_parts, unwrapped
from .program import import_program, is_program
from .weights import Part, guess_parts, parse_parts, read_parts, refuse_wrapped, with_initial

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram


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
    folder = Path(folder)
    name = check_target(folder, name)
    processing = checked(normalization, missing, output, feature_names)
    model = unwrapped(model)
    served: dict[str, Any] = {"feedback": feedback, "tolerance": tolerance, "max_batch": max_batch}
    stated = not isinstance(states, tuple | list | Mapping) or bool(states)
    if is_program(model):
        if normalization is not None or processing.output or initial_state is not None or layers is not None:
            raise ImportRefused(
                "model", "got a torch.export program with normalization, output, initial_state or layers"
            )
        named = tuple(states) if all(isinstance(state, str) for state in states) else ()
        graph: dict[str, Any] = {"name": name, "vocabulary": vocabulary, "missing": processing.missing, **served}
        graph["feature_names"] = processing.feature_names
        program: Any = model
        imported = import_program(program, folder, place="ExportedProgram", states=named, **graph)
        report(str(imported))
        return imported
    if example is None and (stated or vocabulary or layout is not None):
        raise ImportRefused(
            "states, vocabulary, layout",
            f"got {states}, {vocabulary}, {layout}, expected only for a torch.export program or with example",
        )
    read = None
    several = isinstance(example, tuple | list | Mapping)  # a model that is read has one input only
    if example is None or not (stated or several):
        try:
            read = _read(model, layers, _initial(initial_state), processing, name, report if example is None else None)
        except ImportRefused:
            if example is None:
                raise
    if read is None:
        graph = {"vocabulary": vocabulary, **served}
        imported = _import_traced(
            model, folder, name, example, states if stated else None, layout, initial_state, processing, graph
        )
    else:
        place, _, whole, lowered, source = read
        imported = land(
            folder,
            lowered,
            Processed(source, processing),
            random_sequences(whole),
            place,
            tolerance,
            max_batch,
            feedback,
            scaled=scaled_as(whole),
            feature_names=processing.feature_names,
            resolution=rounding(normalization_of(whole)),
            special=special_sequences(whole),
        )
    report(str(imported))
    _report_dtypes(model, report)
    return imported


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


def _import_traced(
    model: Any,
    folder: Path,
    name: str,
    example: object,
    states: object,
    layout: str | None,
    initial_state: object,
    processing: Processing,
    options: Mapping[str, Any],
) -> Imported:
    from .trace import trace, whole_sequence_layers

    if initial_state is not None:
        raise ImportRefused("initial_state", "got one for a module that is traced, expected states")
    if not hasattr(model, "named_modules") or type(model).__module__.startswith("torch.jit"):
        raise ImportRefused("example", f"got one with {type(model).__name__}, expected it with a torch module only")
    module = copied(type(model).__name__, model)
    traced = trace(module, example, states, layout, processing)
    place = type(model).__name__
    try:
        return import_program(
            traced.program,
            folder,
            name=name,
            place=place,
            states=traced.states,
            inputs=traced.inputs,
            outputs=traced.outputs,
            initial=traced.initial,
            step_shape=traced.step_shape,
            source=lambda *_: Processed(traced.source, processing),
            missing=processing.missing,
            feature_names=processing.feature_names,
            **options,
        )
    except ImportRefused as error:
        raise ImportRefused(error.place, f"{whole_sequence_layers(module)}{error.reason}") from error


def _read(
    model: Any,
    layers: str | None,
    initial: Mapping[str, Array],
    processing: Processing,
    name: str,
    report: Report | None,
) -> tuple[str, Stack, Stack, Lowered, Source]:
    """Returns where, the stack alone, the stack with its processing, the bundle's contents, and their reference.

    report: None if the model can be traced instead.
    """
    chain: list[nn.Module] = []
    own: Any = None
    if isinstance(model, str | Path | Mapping):
        place = str(model) if isinstance(model, str | Path) else "state_dict"
        tensors = tensors_of(model, place) if isinstance(model, Mapping) else read_state_dict(Path(model))
        refuse_wrapped(tensors, layers, place)
        parts = parse_parts(layers) if layers else guess_parts(list(tensors), place, tensors)
    else:
        if layers is not None:
            raise ImportRefused(
                "layers", "got a string beside modules, expected it for weights only; pass a list of modules"
            )
        found = flatten(model)
        place = type(model).__name__
        parts, tensors = module_parts(found)
        chain = [copied(name, module) for name, module in found]
        standard = type(model).__module__.startswith("torch.nn.modules")
        own = None if standard or isinstance(model, Sequence) else copied("", model)
    read = with_initial(read_parts(parts, tensors, place), initial, place)
    stack = Stack(_features(read), tuple(read))
    whole = processing.around(stack)
    try:
        lowered = lower(whole, name, place)
    except ImportRefused as error:
        if own is None:
            raise
        raise ImportRefused(
            f"{place}: {error.place}",
            f"{error.reason}: its layers do not chain in the order in which they are registered (does forward bypass "
            f"some of them?); {TRACED}, or export one time step with torch.export, states as arguments, and "
            "pass that",
        ) from error
    if own is not None:
        choices = compare_forward(own, chain, initial, stack, processing)
        words = f"its forward chooses between values ({', '.join(choices)}), which its layers do not"
        if choices and report is None:
            raise ImportRefused(place, words)
        if choices and report is not None:
            report(f"{place}: {words}; for inputs that the comparison did not draw, served values may differ. {TRACED}")
    return place, stack, whole, lowered, _source(chain, parts, tensors, initial, stack)


def _features(layers: Sequence[Layer]) -> int:
    """Returns the features of a time step; 0 for token ids."""
    for layer in layers:
        if isinstance(layer, Recurrent):
            return int(layer.weights["weight_ih"].shape[1])
        if isinstance(layer, LayerNorm) and layer.scale is not None:
            return int(layer.scale.size)
        weight = getattr(layer, "weight", None)
        if weight is not None:
            return int(weight.shape[1]) if type(layer).__name__ == "Dense" and weight.ndim == 2 else 0
    return 1  # widths.check refuses a stack without layers


def _initial(state: Any) -> dict[str, Array]:
    if state is None:
        return {}
    tensors = list(state) if isinstance(state, tuple | list) else [state]
    for value in tensors:
        if not hasattr(value, "detach"):
            raise ImportRefused(
                "initial_state", f"got {type(value).__name__}, expected a tensor h, or a tuple of tensors (h, c)"
            )
    return {
        name: np.array(value.detach().cpu().float().numpy(), np.float32)
        for name, value in zip(("h", "c"), tensors, strict=False)
    }


def _source(
    chain: Sequence[nn.Module],
    parts: Sequence[Part],
    tensors: Mapping[str, Array],
    initial: Mapping[str, Array],
    stack: Stack,
) -> Source:
    if importlib.util.find_spec("torch") is None:
        return Float64Source(stack, "torch is not installed")
    return ModuleChain(chain or build_modules(parts, tensors), initial)
