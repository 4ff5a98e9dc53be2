"""python -m examples.silero_vad [FOLDER]: imports and serves every file of the wheel, and compares it bit for bit."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from examples.serving import served

from .files import VARIANTS, folder_of_the_wheel
from .streaming import import_file, looped, sound, streamed, windows

SECONDS = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.silero_vad")
    parser.add_argument("folder", nargs="?", type=Path, help="with the .onnx files; those of the wheel by default")
    folder = parser.parse_args().folder or folder_of_the_wheel()
    if folder is None:
        print("silero-vad's files are not here; `make silero` fetches its wheel", file=sys.stderr)
        return 1
    variants = [variant for variant in VARIANTS if (folder / variant.file).exists()]  # older wheels have fewer
    differ = 0
    with tempfile.TemporaryDirectory(prefix="cellkeeper-silero-") as name:
        bundles = [Path(name) / variant.name for variant in variants]
        for variant, bundle in zip(variants, bundles, strict=True):
            import_file(folder / variant.file, bundle, variant.words)
        with served(*bundles) as (client, _, _):
            for variant in variants:
                steps = windows(sound(variant.rate, SECONDS), variant.samples, variant.context)
                came = streamed(client, variant.name, "speaker", steps)
                expected = looped(folder / variant.file, steps, variant.constants)
                same = bool(np.array_equal(came, expected))
                differ += not same
                verdict = "the same bits" if same else "DIFFERS"
                print(
                    f"{variant.name}: {len(steps)} time steps, {verdict}, outputs {came.min():.3f} to {came.max():.3f}"
                )
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
