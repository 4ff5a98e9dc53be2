"""Reads numpy.savez files. Never runs code in them, nor unpacks more bytes than they declare."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from .refusal import ImportRefused
from .stack import Array

MAX_BYTES = 1 << 28  # all arrays together: constants and one session's states


def npz_tensors(path: Path, data: bytes) -> dict[str, Array]:
    """Returns numeric arrays by name. Raises ImportRefused."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise ImportRefused(str(path), f"got arrays of {size} bytes, expected at most {MAX_BYTES}")
        with np.load(io.BytesIO(data), allow_pickle=False, max_header_size=10_000) as arrays:
            tensors = {name: np.asarray(arrays[name]) for name in arrays.files}
    except ImportRefused:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise all kinds of errors for bad bytes
        raise ImportRefused(
            str(path), f"not a file of numpy.savez ({type(error).__name__}: {error}); save it again"
        ) from error
    for name, array in tensors.items():
        if array.dtype.kind not in "fiub":
            raise ImportRefused(f"{path}: {name}", f"got dtype {array.dtype}, expected numbers")
    return tensors
