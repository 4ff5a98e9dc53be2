"""The ONNX files of the wheel silero-vad, and what an import must be told about each."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

FETCHED = Path(".silero")  # where `make silero` puts them


@dataclass(frozen=True)
class Variant:
    """A file at one sampling rate. words: the arguments of `cellkeeper-server import onnx`."""

    file: str
    rate: int  # samples per second
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        stem = self.file.removesuffix(".onnx").replace("_", "-")
        return stem if "16k" in stem else f"{stem}-{self.rate // 1000}k"

    @property
    def samples(self) -> int:
        """New samples in a time step."""
        return 512 if self.rate == 16000 else 256

    @property
    def context(self) -> int:
        """Samples of the previous time step, which come first."""
        return 64 if self.rate == 16000 else 32

    @property
    def constants(self) -> dict[str, int]:
        """Inputs with a constant value."""
        return {"sr": self.rate} if "--constant" in self.words else {}


def _free(file: str, rate: int, *, rated: bool = True) -> Variant:
    window = "576" if rate == 16000 else "288"
    constant = ("--constant", f"sr={rate}") if rated else ()
    return Variant(file, rate, ("--input-shape", window, *constant))


VARIANTS = (
    _free("silero_vad.onnx", 16000),
    _free("silero_vad.onnx", 8000),
    _free("silero_vad_16k_op15.onnx", 16000),
    _free("silero_vad_half.onnx", 16000, rated=False),
    _free("silero_vad_op18_ifless.onnx", 16000),
    _free("silero_vad_op18_ifless.onnx", 8000),
    Variant("silero_vad_openvino_16k.onnx", 16000, ()),  # a batch of one: one session in a call
    Variant("silero_vad_16k_sequence.onnx", 16000, ("--layout", "time_first")),  # only time, without a batch
)


def folder_of_the_wheel(fetched: Path = FETCHED) -> Path | None:
    """Returns the folder of the files: in the installed package, which is not imported, or from `make silero`."""
    spec = importlib.util.find_spec("silero_vad")
    places = [Path(path) / "data" for path in (spec.submodule_search_locations or ())] if spec else []
    places.append(fetched / "silero_vad" / "data")
    return next((place for place in places if list(place.glob("*.onnx"))), None)
