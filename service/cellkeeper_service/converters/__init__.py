"""Converts trained models to bundles.

    import_torch   modules in a script, or weights in a file
    import_keras   .keras and .h5 files
    import_onnx    graphs (input, constants, states) -> (outputs, states)

Each ends with a comparison on random sequences, and leaves either a complete bundle or nothing.
"""

from cellkeeper_service.model.config import Missing, Normalization, Transform
from cellkeeper_service.model.fit import fit_normalization, fit_output

from .imported import Imported
from .keras.model import import_keras
from .onnx.model import import_onnx
from .parity import Parity
from .refusal import ImportRefused
from .torch.model import import_torch

__all__ = [
    "ImportRefused",
    "Imported",
    "Missing",
    "Normalization",
    "Parity",
    "Transform",
    "fit_normalization",
    "fit_output",
    "import_keras",
    "import_onnx",
    "import_torch",
]
