"""A torch model's weights by name, and how they form layers.

Modules and files are read alike: as a list of `Part`s, each with a kind of layer and the prefix of its tensors' names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cellkeeper_service.model.config import GATES

from ..files import BATCH_NORM
from ..refusal import BACKWARD, ImportRefused
from ..stack import ACTIVATIONS, Activate, Array, Dense, Embed, Layer, LayerNorm, ParametricRelu, Recurrent

KINDS = (*GATES, *(f"{cell}_cell" for cell in GATES), "embedding", "dense", "tied", "layer_norm", "prelu")
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")  # of a recurrent layer
_FLAT = ("embedding", "dense", "tied", "layer_norm", "prelu")
NUMBERED = ("leaky_relu", "elu", "layer_norm=")  # words that may end in a number: leaky_relu:0.01, layer_norm=ln:1e-6
UNNORMED = (
    "merge it into one tensor first, with torch.nn.utils.remove_weight_norm or torch.nn.utils.parametrize."
    "remove_parametrizations"
)
MOST_NAMED = 8
HINT = f"words like 'embedding=emb lstm=rnn dense=fc relu dense=out'; kinds: {', '.join(KINDS)}"


@dataclass(frozen=True)
class Part:
    """One layer. kind: one of KINDS, or an activation. prefix: of its tensors' names; "" if they have none."""

    kind: str
    prefix: str = ""
    slope: float = 1.0  # of leaky_relu and elu
    epsilon: float = 1e-5  # of layer_norm

    def tensors(self, every: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the tensors below its prefix, by the rest of their names."""
        dotted = f"{self.prefix}." if self.prefix else ""
        return {name.removeprefix(dotted): value for name, value in every.items() if name.startswith(dotted)}

    @property
    def place(self) -> str:
        return f"{self.kind}={self.prefix}" if self.kind in KINDS else self.kind


def parse_parts(text: str) -> list[Part]:
    """Parses "embedding=emb lstm=rnn dense=fc relu". Raises ImportRefused."""
    parts = []
    for word in text.split():
        text, colon, number = word.rpartition(":") if word.startswith(NUMBERED) else (word, "", "")
        kind, equals, prefix = (text if colon else word).partition("=")
        if kind not in (KINDS if equals else ACTIVATIONS):
            raise ImportRefused("layers", f"got {word!r}, expected {HINT}; activations: {', '.join(ACTIVATIONS)}")
        parts.append(_numbered(Part(kind, prefix), word, number if colon else None))
    if not parts:
        raise ImportRefused("layers", f"got none, expected {HINT}")
    return parts


def _numbered(part: Part, word: str, number: str | None) -> Part:
    """Sets the slope or epsilon that the word contains. leaky_relu has no default slope."""
    if number is None:
        if part.kind == "leaky_relu":
            raise ImportRefused("layers", "got 'leaky_relu', expected its slope with it, such as leaky_relu:0.01")
        return part
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ImportRefused("layers", f"got {word!r}, expected a number after the colon, such as leaky_relu:0.01")
    return replace(part, epsilon=value) if part.kind == "layer_norm" else replace(part, slope=value)


def refuse_wrapped(tensors: Mapping[str, Array], layers: str | None, place: str) -> None:
    """Raises ImportRefused for names with a wrapper's prefix that `layers` lacks, and weights stored in two parts."""
    for wrapper, what in (("module.", "nn.DataParallel"), ("_orig_mod.", "torch.compile")):
        if tensors and all(name.startswith(wrapper) for name in tensors) and wrapper not in (layers or ""):
            raise ImportRefused(
                place,
                f"all names begin with {wrapper}, as {what} writes them; save model.{wrapper}state_dict(), or "
                f"write the prefixes in layers with it, such as lstm={wrapper}rnn",
            )
    for name in tensors:
        if re.search(r"(weight|bias)\w*_(g|v|orig)$", name) or "parametrizations." in name:
            base = re.sub(r"parametrizations\.|\.original\d*$|_(g|v|orig)$", "", name)
            if base not in tensors and f"{base}_mask" in tensors:
                raise ImportRefused(
                    f"{place}: tensor {name}",
                    f"a part of {base}, which is pruned; make it permanent first, with "
                    "torch.nn.utils.prune.remove(module, name)",
                )
            if base not in tensors:
                raise ImportRefused(f"{place}: tensor {name}", f"a part of {base} (weight_norm?); {UNNORMED}")


def guess_parts(names: Sequence[str], place: str, tensors: Mapping[str, Array]) -> list[Part]:
    """Returns the parts in the one unambiguous case: a single nn.LSTM or nn.GRU. Raises ImportRefused otherwise."""
    first = [name for name in names if name.endswith("weight_ih_l0")]
    if len(first) == 1:
        prefix = first[0].removesuffix("weight_ih_l0")
        back = tensors.get(f"{prefix}weight_hh_l0")
        shrink = tensors.get(f"{prefix}weight_hr_l0")
        matrices = back is not None and back.ndim == 2 and (shrink is None or shrink.ndim == 2)
        if all(name.startswith(prefix) for name in names) and back is not None and matrices:
            hidden = back.shape[1] if shrink is None else shrink.shape[1]
            kinds = [cell for cell in ("lstm", "gru") if hidden and len(back) == GATES[cell] * hidden]
            if kinds:
                return [Part(kinds[0], prefix.removesuffix("."))]
    raise ImportRefused(
        place, f"layers: the tensors' names do not show their order and the activations; pass layers, {HINT}"
    )


def read_parts(parts: Sequence[Part], tensors: Mapping[str, Array], place: str) -> list[Layer]:
    """Returns the layers. Raises ImportRefused if a tensor is missing, or belongs to no part."""
    left = set(tensors)
    layers: list[Layer] = []
    for part in parts:
        dotted = f"{part.prefix}." if part.prefix else ""
        mine = part.tensors(tensors)
        if part.kind in KINDS and part.kind != "tied" and not mine:
            raise ImportRefused(
                f"{place}: {part.place}",
                f"no tensor's name begins with {dotted or 'the name of a weight'}; the names begin with "
                f"{_beginnings(tensors)}",
            )
        if part.kind in _FLAT:
            layers.append(_flat(part, mine, layers, place))
            left -= {f"{dotted}weight", f"{dotted}bias"}
        elif part.kind in KINDS:
            layers += _cells(part, mine, place)
            pattern = f"({'|'.join(WEIGHTS)}){'' if part.kind.endswith('_cell') else '_l[0-9]+'}"
            left -= {f"{dotted}{name}" for name in mine if re.fullmatch(pattern, name)}
        else:
            layers.append(Activate(part.place, part.kind, part.slope))
    if any(name.endswith(".running_mean") for name in left):
        raise ImportRefused(f"{place}: tensor {min(left)}", BATCH_NORM)
    if left:
        words = " ".join(part.place for part in parts)
        raise ImportRefused(
            place,
            f"tensor {min(left)}: belongs to none of the layers {words}; name its layer, or, if it is none of the "
            "model's (a metric, a loss), pass the state_dict without it",
        )
    return layers


def with_initial(layers: Sequence[Layer], initial: Mapping[str, Array], place: str) -> list[Layer]:
    """Sets the recurrent layers' initial states: "h" and "c", [layers, width] each."""
    cells = [layer for layer in layers if isinstance(layer, Recurrent)]
    for name, values in initial.items():
        if name not in ("h", "c") or values.ndim != 2 or len(values) != len(cells):
            raise ImportRefused(
                f"{place}: initial state {name}",
                f"got shape {list(values.shape)}, expected h and c of [{len(cells)}, width]",
            )
    rows = iter([{name: values[number] for name, values in initial.items()} for number in range(len(cells))])
    return [replace(layer, initial=next(rows)) if isinstance(layer, Recurrent) else layer for layer in layers]


def _flat(part: Part, mine: Mapping[str, Array], before: Sequence[Layer], place: str) -> Layer:
    weight = mine.get("weight")
    if part.kind == "tied":
        embeds = [layer for layer in before if isinstance(layer, Embed)]
        if not embeds:
            raise ImportRefused(f"{place}: {part.place}", "no embedding before it, expected one whose weight it shares")
        weight = embeds[0].weight
    if weight is None:
        raise ImportRefused(
            f"{place}: {part.place}", f"tensor {part.prefix}.weight: missing (tied to the embedding? then say tied=)"
        )
    if part.kind == "embedding":
        return Embed(part.place, weight)
    if part.kind == "layer_norm":
        return LayerNorm(part.place, part.epsilon, weight, mine.get("bias"))
    if part.kind == "prelu":
        return ParametricRelu(part.place, weight)
    return Dense(part.place, weight, mine.get("bias"))


def _cells(part: Part, mine: Mapping[str, Array], place: str) -> list[Layer]:
    kind = part.kind.removesuffix("_cell")
    single = part.kind.endswith("_cell")
    if any(name.endswith("_reverse") for name in mine):
        raise ImportRefused(f"{place}: {part.place}", f"bidirectional; {BACKWARD}")
    layers: list[Layer] = []
    while True:
        suffix = "" if single else f"_l{len(layers)}"
        weights = {name: mine[name + suffix] for name in WEIGHTS if name + suffix in mine}
        if not weights and layers:
            return layers
        where = f"{place}: {part.place}" + ("" if single else f" layer {len(layers)}")
        for name in ("weight_ih", "weight_hh", "weight_hr"):
            if name not in weights and name != "weight_hr":
                raise ImportRefused(where, f"tensor {name}{suffix}: missing")
            if name in weights and weights[name].ndim != 2:
                raise ImportRefused(where, f"{name}: got shape {list(weights[name].shape)}, expected a matrix")
        hidden, rest = divmod(len(weights["weight_ih"]), GATES[kind])
        if rest:
            raise ImportRefused(
                where,
                f"weight_ih: got {len(weights['weight_ih'])} rows, expected a multiple of {GATES[kind]} for {kind}",
            )
        layers.append(Recurrent(where, kind, hidden, weights))
        if single:
            return layers


def _beginnings(names: Iterable[str]) -> str:
    """Returns what words in `layers` can name."""
    found = sorted({name.rpartition(".")[0] for name in names} - {""})
    rest = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"{', '.join(found[:MOST_NAMED])}{rest}" if found else f"no prefix: {', '.join(sorted(names)[:MOST_NAMED])}"
