"""Orders the layers of a Keras model for computation: Sequential or functional, with or without branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..refusal import ImportRefused, NotRead

FUNCTIONAL = "of a subclass of Model, import keras.Model(x, model.call(x)) with x = keras.Input((None, features))"
_OWN_CLASS = "code of a model is not run; pass the model itself with trace=True, in a script that defines the class"
MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a model.

    kind: the name of its class. config: as Keras writes it. number: how many layers of this class came before it.
    sources: names of the layers whose outputs it takes. constant: what else it is called with; "" for nothing.
    For a cell within a layer: holder, that layer's class; within, the groups that lead to its weights in a .keras file;
    cell, its own name. untimed: what it takes has no time axis, because it comes after a last time step.
    """

    place: str
    name: str
    kind: str
    config: dict[str, Any]
    number: int
    sources: tuple[str, ...] = ()
    constant: str = ""
    holder: str = ""
    within: tuple[str, ...] = ()
    cell: str = ""
    untimed: bool = False


def ordered_layers(model: dict[str, Any], place: str) -> list[KerasLayer]:
    """Returns the layers, input layers included, in an order in which they can be computed; the last gives the output.

    Raises ImportRefused for several inputs or outputs, a layer that is used twice, and custom classes.
    """
    kind, config = model.get("class_name"), model.get("config")
    if kind not in ("Sequential", "Functional", "Model") or not isinstance(config, dict | list):
        raise ImportRefused(place, f"got a model of class {kind!r}, expected Sequential or Functional; {FUNCTIONAL}")
    refuse_custom(model, place)
    entries = config if isinstance(config, list) else config.get("layers")  # a list: Keras before 2.3
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImportRefused(f"{place}: layers", "expected a list of layers")
    counts: dict[str, int] = {}
    layers = []
    for entry in entries:
        layer = _layer(entry, place, counts)
        layers.append(layer)
    if kind == "Sequential" or not isinstance(config, dict):
        names = [layer.name for layer in layers]
        return [replace(layer, sources=tuple(names[:i][-1:])) for i, layer in enumerate(layers)]
    return _graph(layers, entries, config, place)


def refuse_custom(entry: Mapping[str, Any], where: str) -> None:
    """Raises ImportRefused for a class of the user's own, whatever its name: it may have the name of one of Keras.

    Keras writes no module for a class of a script, and looks a registered name up before it looks at the module.
    """
    module, registered = entry.get("module"), entry.get("registered_name")
    if isinstance(module, str) and module.partition(".")[0] not in ("keras", "tf_keras"):
        raise ImportRefused(where, f"a class of {module}; {_OWN_CLASS}")
    if isinstance(registered, str) and (">" in registered or not isinstance(module, str)):
        raise ImportRefused(where, f"a class registered as {registered}, which is not Keras' own; {_OWN_CLASS}")


def _layer(entry: dict[str, Any], place: str, counts: dict[str, int]) -> KerasLayer:
    kind, config = entry.get("class_name"), entry.get("config")
    if not isinstance(kind, str) or not isinstance(config, dict):
        raise ImportRefused(
            f"{place}: layers", f"got class {kind!r} and {type(config).__name__}, expected a layer's config"
        )
    name = str(config.get("name", entry.get("name", kind)))
    where = f"{place}: layer {name} ({kind})"
    refuse_custom(entry, where)
    if kind == "Average" and "axis" in config:
        raise NotRead(where, "the function keras.ops.average, expected the layer of that name, which joins branches")
    counts[kind] = counts.get(kind, -1) + 1
    return KerasLayer(where, name, kind, config, counts[kind])


def _graph(
    layers: list[KerasLayer], entries: list[dict[str, Any]], config: dict[str, Any], place: str
) -> list[KerasLayer]:
    """Returns the layers that the output needs, in an order in which they can be computed."""
    by_name = {layer.name: (layer, entry) for layer, entry in zip(layers, entries, strict=True)}
    ends = {}
    for key in ("input_layers", "output_layers"):
        found = list(_references(config.get(key)))
        if len(found) != 1 or found[0][0] not in by_name:
            raise NotRead(
                f"{place}: {key}",
                f"got {[name for name, _ in found]}, expected one: only models with one input and one output are read",
            )
        ends[key] = found[0]
    first = ends["input_layers"][0]
    masks: list[str] = []
    ordered: dict[str, KerasLayer] = {}
    visited: set[str] = set()
    waiting = [ends["output_layers"]]
    while waiting:
        name, tensor = waiting[-1]
        layer, entry = by_name[name]
        if tensor != 0:
            raise NotRead(layer.place, "its returned state is used, expected its output")
        if name in ordered:
            waiting.pop()
            continue
        nodes, mine = _without_masks(entry.get("inbound_nodes") or [])
        sources = [] if name == first else _sources(layer, nodes, by_name)
        missing = [source for source in sources if source[0] not in ordered]
        if missing:
            if name in visited:
                raise ImportRefused(layer.place, "depends on its own output, expected an acyclic graph")
            visited.add(name)
            waiting += missing
            continue
        masks += mine
        constant = next(_constants(nodes[0]), "") if isinstance(nodes, list) and nodes else ""
        ordered[name] = replace(layer, sources=tuple(source for source, _ in sources), constant=constant)
        waiting.pop()
    for mask in masks:
        _check_mask(mask, list(ordered.values()), by_name)
    return list(ordered.values())


def _sources(
    layer: KerasLayer, nodes: Any, by_name: dict[str, tuple[KerasLayer, dict[str, Any]]]
) -> list[tuple[str, int]]:
    """Returns the tensors that a layer takes, each as the name of a layer and an index."""
    if not isinstance(nodes, list) or len(nodes) != 1:
        raise NotRead(layer.place, "is used more than once, expected each layer once")
    sources = list(_references(nodes))
    names = [source for source, _ in sources]
    if not all(name in by_name for name in names):
        raise ImportRefused(layer.place, f"takes {names}, expected layers of the model")
    if layer.kind in MERGES:
        if len(names) < 2:
            raise NotRead(layer.place, f"takes {names}, expected two or more layers, and no constants")
    elif len(names) != 1:
        raise ImportRefused(
            layer.place,
            f"takes {names}, expected one layer before it: attention, and initial states from other layers, cannot be "
            f"served; branches meet in {', '.join(MERGES)}",
        )
    return sources


def _constants(node: Any) -> Iterator[str]:
    """Yields what a layer is called with besides tensors of the model.

    A training=True is none in files of Keras 3, which replaces it by what the model is called with; Keras 2 keeps it.
    """
    if isinstance(node, dict):
        if _is_constant(node.get("args")):
            yield "a constant"
        words = node.get("kwargs")
    else:
        whole = node if isinstance(node, list) else []
        tensors = [whole] if whole and isinstance(whole[0], str) else whole
        ends = [item[3] for item in tensors if isinstance(item, list) and len(item) == 4]
        words = {key: value for end in ends if isinstance(end, dict) for key, value in end.items()}
        if words.get("training") is True:
            yield "training=True"
    for key, value in words.items() if isinstance(words, dict) else ():
        if key != "training" and _is_constant(value):
            yield f"a constant as {key}"


def _is_constant(value: Any, depth: int = 0) -> bool:
    """Returns True if anything within the value is neither a tensor of the model nor a switch."""
    if isinstance(value, dict) and "class_name" in value:
        return bool(value["class_name"] != "__keras_tensor__")
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 16 or any(_is_constant(item, depth + 1) for item in inner)
    return value is not None and not isinstance(value, bool)


def _without_masks(nodes: Any) -> tuple[Any, list[str]]:
    """Returns the nodes without the mask, which Keras 3 writes as an argument of each layer, and the mask's sources."""
    if not isinstance(nodes, list) or len(nodes) != 1 or not isinstance(nodes[0], dict):
        return nodes, []
    kwargs = nodes[0].get("kwargs")
    if not isinstance(kwargs, dict) or "mask" not in kwargs:
        return nodes, []
    taken = [name for name, _ in _references(kwargs["mask"])]
    rest = {key: value for key, value in kwargs.items() if key != "mask" or not (taken or value is None)}
    return [{**nodes[0], "kwargs": rest}], taken


def _check_mask(name: str, chain: list[KerasLayer], by_name: dict[str, tuple[KerasLayer, dict[str, Any]]]) -> None:
    """Checks that a mask is that of an Embedding or Masking layer of the chain: x != value, for features in any."""
    layer, entry = by_name.get(name, (chain[0], {}))
    place = layer.place
    if layer.kind == "Any":
        sources = [source for source, _ in _references(entry.get("inbound_nodes"))]
        layer, entry = by_name.get(sources[0], (layer, {})) if sources else (layer, {})
    nodes = entry.get("inbound_nodes")
    node = nodes[0] if layer.kind == "NotEqual" and isinstance(nodes, list) and nodes else {}
    words = node.get("args") if isinstance(node, dict) else None
    compared = words[1] if isinstance(words, list) and len(words) == 2 else None
    sources = [source for source, _ in _references(words)]
    for masking in chain:
        value = masking.config.get("mask_value") if masking.kind == "Masking" else None
        value = 0 if masking.kind == "Embedding" and masking.config.get("mask_zero") else value
        taken = [source for source, _ in _references(by_name[masking.name][1].get("inbound_nodes"))]
        if value is not None and value == compared and sources == taken:
            return
    raise ImportRefused(place, "a mask that does not come from an Embedding or a Masking layer before it")


def _references(value: Any, depth: int = 0) -> Iterator[tuple[str, int]]:
    """Yields every tensor that a value names, as the name of a layer and an index, in the forms of Keras 2 and 3."""
    if depth > 16:
        return
    if isinstance(value, dict):
        config = value.get("config")
        if value.get("class_name") == "__keras_tensor__" and isinstance(config, dict):
            value = config.get("keras_history")
        else:
            for item in value.values():
                yield from _references(item, depth + 1)
            return
    if not isinstance(value, list):
        return
    if len(value) in (3, 4) and isinstance(value[0], str) and all(type(item) is int for item in value[1:3]):
        yield value[0], value[2]
        value = value[3:]
    for item in value:
        yield from _references(item, depth + 1)
