"""What clients of this protocol call a model's tensors, and which leading dimensions they give to them.

Both are as in the bundle, or as the settings say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import StartError
from cellkeeper_service.rpc.fields import STATE_PREFIX

NAMES_FORM = "MODEL/NAME=TENSOR, comma-separated"
LAYOUTS_FORM = "MODEL=LAYOUT, comma-separated"


@dataclass(frozen=True, slots=True)
class Layout:
    """The dimensions before those of a time step. A single step needs no time dimension.

    batch: tensors have a batch dimension, of size 1. timed: outputs have a time dimension if the inputs have one. If
    not, the inputs' is 1 and the outputs have none.
    """

    batch: bool = True
    timed: bool = True

    def expected(self, step: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of an input with and without a time dimension. -1: any size."""
        batch = (-1,) * self.batch
        return (*batch, -1 if self.timed else 1, *step), (*batch, *step)

    def declared_output(self, step: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of an output as clients are told."""
        return self.expected(step)[0 if self.timed else 1]

    def leading(self, steps: int | None) -> tuple[int, ...]:
        """Returns the dimensions of a tensor in a reply. steps: None if it has no time dimension."""
        return (1,) * self.batch + (() if steps is None or not self.timed else (steps,))


BATCH = Layout()
LAYOUTS = {"batch": BATCH, "no_batch": Layout(batch=False), "one_step": Layout(timed=False)}


class TensorNames:
    """The names of one model's tensors.

    inputs: by the clients' names. Several inputs have names already, and keep them.
    outputs: from each client's name, in the model's order, to ours: an output's name, or "state." and a state's name.
    listed: those of `outputs` that the model is said to have, and that a request gets if it names none: all but hidden
    values and states.
    layout: of all of them.
    """

    def __init__(self, spec: ModelSpec, renamed: Mapping[str, str], layout: Layout = BATCH) -> None:
        """renamed: from our name of a tensor to the clients'."""
        self.layout = layout
        states = [STATE_PREFIX + state.name for state in spec.states]
        own = [output.name for output in spec.outputs] + states
        inputs = spec.inputs or (spec.input,)
        self.inputs = {part.name if spec.inputs else renamed.get(part.name, part.name): part for part in inputs}
        self.outputs = {renamed.get(name, name): name for name in own}
        listed = [output.name for output in spec.outputs if output.name != "hidden"]
        self.listed = tuple(renamed.get(name, name) for name in listed)


def read_names(text: str, specs: Mapping[str, ModelSpec], layouts: str = "") -> dict[str, TensorNames]:
    """Returns the names by model. text, layouts: the settings. Raises StartError."""
    layout_of = read_layouts(layouts, specs)
    renamed: dict[str, dict[str, str]] = {model: {} for model in specs}
    for part in filter(None, (one.strip() for one in text.split(","))):
        model, slash, rest = part.partition("/")
        name, equals, tensor = rest.partition("=")
        if not (model and slash and name and equals and tensor):
            raise StartError(f"kserve_names: got {part!r}, expected {NAMES_FORM}")
        if model not in specs:
            raise StartError(f"kserve_names: got the model {model!r}, expected one of {', '.join(sorted(specs))}")
        spec = specs[model]
        known = [*([] if spec.inputs else [spec.input.name]), *TensorNames(spec, {}).outputs.values()]
        if tensor not in known:
            raise StartError(f"kserve_names: got the tensor {tensor!r} of {model}, expected one of {', '.join(known)}")
        if tensor in renamed[model]:
            raise StartError(f"kserve_names: got two names for {model}'s tensor {tensor!r}, expected one")
        renamed[model][tensor] = name
    found = {model: TensorNames(spec, renamed[model], layout_of.get(model, BATCH)) for model, spec in specs.items()}
    for model, names in found.items():
        if len(names.outputs) < len(TensorNames(specs[model], {}).outputs):
            raise StartError(f"kserve_names: got one name for two outputs of {model}, expected one for each")
    return found


def read_layouts(text: str, models: Collection[str]) -> dict[str, Layout]:
    """Returns the layouts by model. text: the setting. Raises StartError."""
    found: dict[str, Layout] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        model, equals, layout = part.partition("=")
        if not (model and equals and layout):
            raise StartError(f"kserve_layout: got {part!r}, expected {LAYOUTS_FORM}")
        if model not in models:
            raise StartError(f"kserve_layout: got the model {model!r}, expected one of {', '.join(sorted(models))}")
        if layout not in LAYOUTS:
            raise StartError(f"kserve_layout: got {layout!r} for {model}, expected one of {', '.join(LAYOUTS)}")
        if model in found:
            raise StartError(f"kserve_layout: got two layouts for {model}, expected one")
        found[model] = LAYOUTS[layout]
    return found
