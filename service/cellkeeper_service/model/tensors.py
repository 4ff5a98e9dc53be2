"""The tensors in a bundle, by name and shape.

The names and the gate order are PyTorch's: LSTM i, f, g, o; GRU r, z, n.

    embedding.weight [vocabulary, embedding_size]
    rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0, rnn.weight_hr_l0 (projection), ..._l1, ...
    initial.h [layers, recurrent], initial.c [layers, hidden]: if initial_state is "learned"
    head.0.weight [units, inputs], head.0.bias, head.1.weight, ...
    constant.<input>, initial.<state> (optional; default: zeros): for a graph
"""

from __future__ import annotations

from cellkeeper_service.domain.spec import PackedInputs, TensorSpec

from .config import Config, Features, GraphConfig, RecurrentConfig, Tokens
from .named_inputs import NamedInputs

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(config: RecurrentConfig) -> Shapes:
    """Returns the name and shape of every tensor of a recurrent model; all are float32."""
    shapes: Shapes = {}
    if isinstance(config.input, Tokens):
        shapes["embedding.weight"] = (config.input.vocabulary, config.input.embedding_size)
    gates = config.gates * config.hidden_size
    width = config.input_size
    for layer in range(config.num_layers):
        shapes[f"rnn.weight_ih_l{layer}"] = (gates, width)
        shapes[f"rnn.weight_hh_l{layer}"] = (gates, config.recurrent_size)
        if config.bias:
            shapes[f"rnn.bias_ih_l{layer}"] = shapes[f"rnn.bias_hh_l{layer}"] = (gates,)
        if config.proj_size:
            shapes[f"rnn.weight_hr_l{layer}"] = (config.proj_size, config.hidden_size)
        width = config.recurrent_size
    if config.initial_state == "learned":
        for state in cell_states(config):
            shapes[f"initial.{state.name}"] = state.shape
    for i, dense in enumerate(config.head):
        shapes[f"head.{i}.weight"] = (dense.units, width)
        if dense.bias:
            shapes[f"head.{i}.bias"] = (dense.units,)
        width = dense.units
    return shapes


def cell_states(config: Config) -> tuple[TensorSpec, ...]:
    """Returns the states of the cells themselves, in the order of a checkpoint."""
    if isinstance(config, GraphConfig):
        return tuple(TensorSpec(state.name, state.dtype, state.shape) for state in config.states)
    states = [TensorSpec("h", "float32", (config.num_layers, config.recurrent_size))]
    if config.cell == "lstm":
        states.append(TensorSpec("c", "float32", (config.num_layers, config.hidden_size)))
    return tuple(states)


def all_states(config: Config) -> tuple[TensorSpec, ...]:
    """Returns the states of a checkpoint: those of the cells, then "last_input" if missing values are held, with the
    shape of a time step."""
    states = cell_states(config)
    if isinstance(config.input, Features) and config.input.missing.policy == "hold":
        states += (TensorSpec("last_input", "float32", config.input.step_shape),)
    return states


def tensor_dtypes(config: Config) -> dict[str, str]:
    """Returns the dtypes of a bundle's tensors that are not float32: some initial states of a graph."""
    if not isinstance(config, GraphConfig):
        return {}
    return {f"initial.{state.name}": state.dtype for state in config.states if state.dtype != "float32"}


def outputs(config: Config) -> tuple[TensorSpec, ...]:
    """Returns the outputs of a time step; the first is the default."""
    if isinstance(config, GraphConfig):
        return tuple(TensorSpec(output.name, "float32", output.shape) for output in config.outputs)
    return (
        TensorSpec("prediction", "float32", (config.output_size,)),
        TensorSpec("hidden", "float32", (config.recurrent_size,)),
    )


def input_spec(config: Config) -> TensorSpec:
    """Returns the input's spec: float32 [F] (any shape for a graph), int32 [] for token ids, or packed inputs."""
    if isinstance(config.input, NamedInputs):
        return PackedInputs.of(tuple(one.spec for one in config.input.inputs))
    if isinstance(config.input, Tokens):
        return TensorSpec("input", "int32", ())
    return TensorSpec("input", "float32", config.input.step_shape)
