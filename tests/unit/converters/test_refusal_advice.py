"""What a refusal says to do about files and models as people have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cellkeeper_service.converters import import_keras, import_torch
from torch import Tensor, nn

from .leftovers import refused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # by Keras
WORDS = "lstm=rnn dense=head"


class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 1)


def weights() -> dict[str, Any]:
    modules = nn.ModuleDict({"rnn": nn.LSTM(3, 4), "head": nn.Linear(4, 1)})
    return dict(modules.state_dict())


def other_weights() -> dict[str, Tensor]:
    return {name: 2 * values for name, values in weights().items()}


def saved(folder: Path, value: Any, **options: Any) -> Path:
    torch.save(value, folder / "weights.pt", **options)
    return folder / "weights.pt"


SOURCES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "before PyTorch 1.6": (
        lambda folder: saved(folder, weights(), _use_new_zipfile_serialization=False),
        r"torch\.save\(torch\.load\('weights\.pt', weights_only=True\), 'new\.pt'\)",
    ),
    "a checkpoint": (lambda folder: saved(folder, {"net": weights(), "epoch": 3}), r"pass checkpoint\['net'\]"),
    "an average of the weights": (
        lambda folder: saved(folder, {"model": weights(), "ema": {"shadow": other_weights()}}),
        r"different values.*: \['model'\], \['ema'\]\['shadow'\]; pass .* such as checkpoint\['ema'\]\['shadow'\]",
    ),
    "an average of torch's": (
        lambda _: {"model": weights(), "swa": {"module." + name: w for name, w in other_weights().items()}},
        r"different values.*: \['model'\], \['swa'\]; pass",
    ),
    "batch normalization": (lambda folder: saved(folder, Normalized().state_dict()), "batch normalization.*example=x"),
    "batch normalization in a script": (lambda _: Normalized().state_dict(), "batch normalization.*example=x"),
    "a layer that is not read": (lambda _: Normalized(), r"norm \(BatchNorm1d\): not a layer.*; pass example=x"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_weights(source: str, tmp_path: Path) -> None:
    make, words = SOURCES[source]
    model = make(tmp_path)
    layers = None if isinstance(model, nn.Module) else WORDS
    refused(tmp_path, words, import_torch, model, tmp_path / "m", layers=layers)


def test_a_checkpoint_under_a_usual_key_is_read_in_a_script_as_from_a_file(tmp_path: Path) -> None:
    own = weights()
    again = {name: values.clone() for name, values in own.items()}
    checkpoint: Any = {"state_dict": own, "model": again, "epoch": 3}
    sources: list[Any] = [checkpoint, saved(tmp_path, checkpoint)]
    for number, source in enumerate(sources):
        import_torch(source, tmp_path / f"{number}", layers=WORDS, max_batch=4, report=str)


def test_squeeze_without_an_axis(tmp_path: Path) -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 1, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.rnn(x)[0].tanh()
            return y.squeeze()

    example = torch.zeros(1, 5, 3)
    refused(tmp_path, r"squeeze\(-1\) does not", import_torch, Squeezed(), tmp_path / "m", example=example)


def test_states_of_another_batch_than_the_example(tmp_path: Path) -> None:
    words = r"states: got \[\[4, 8\]\], but no axis of a state has the size of the batch of example, 1"
    options: dict[str, Any] = {"example": torch.zeros(1, 3), "states": torch.zeros(4, 8)}
    refused(tmp_path, words, import_torch, nn.GRUCell(3, 8), tmp_path / "m", **options)


def test_packed_sequences(tmp_path: Path) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            packed, _ = self.rnn(nn.utils.rnn.pack_padded_sequence(x, [len(x)] * x.shape[1]))
            y: Tensor = nn.utils.rnn.pad_packed_sequence(packed)[0].tanh()
            return y

    words = "rnn takes a PackedSequence; give it the tensor: a session has no padding"
    refused(tmp_path, words, import_torch, Packed(), tmp_path / "m", example=torch.zeros(5, 1, 3))


def test_quantized_modules(tmp_path: Path) -> None:
    class Quantized(nn.Module):
        __module__ = "torch.ao.nn.quantized.dynamic"

    model = nn.Sequential(nn.LSTM(3, 4), Quantized())
    for example in (None, torch.zeros(1, 5, 3)):
        refused(
            tmp_path, r"1 \(Quantized\): quantized.*as it was", import_torch, model, tmp_path / "m", example=example
        )


def test_a_folder_of_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"x")
    refused(tmp_path, r"SavedModel of TensorFlow.*model\.h5", import_keras, tmp_path / "saved", tmp_path / "m")


def test_a_keras_model_of_its_own_class(keras: Any, tmp_path: Path) -> None:
    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.rnn = keras.layers.GRU(4)

        def call(self, x: Any) -> Any:
            return self.rnn(x)

    model = Own()
    x = keras.Input((None, 3))
    functional = keras.Model(x, model.call(x))
    model(keras.ops.zeros((1, 2, 3)))
    model.save(tmp_path / "own.keras")
    functional.save(tmp_path / "functional.keras")
    refused(tmp_path, r"import keras\.Model\(x, model\.call", import_keras, tmp_path / "own.keras", tmp_path / "m")
    refused(tmp_path, r"import keras\.Model\(x, model\.call", import_keras, model, tmp_path / "m", trace=True)
    import_keras(tmp_path / "functional.keras", tmp_path / "m", max_batch=4, report=str)
