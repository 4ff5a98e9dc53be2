"""The recipe of examples/silero_vad, on a small graph of the same shape and, if available, on the wheel's files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from examples.serving import served
from examples.silero_vad.files import FETCHED, VARIANTS, folder_of_the_wheel
from examples.silero_vad.streaming import import_file, looped, sound, streamed, windows
from verification.parity.shipped_graphs import detector

ROOT = Path(__file__).parents[3]
README = (ROOT / "examples" / "silero_vad" / "README.md").read_text()


def test_windows_hand_the_context_on() -> None:
    steps = windows(np.arange(1, 12, dtype=np.float32), 4, 2)
    assert steps.tolist() == [[0, 0, 1, 2, 3, 4], [3, 4, 5, 6, 7, 8]]


def test_a_small_detector_served_gives_the_bits_of_a_loop(tmp_path: Path) -> None:
    file = tmp_path / "detector.onnx"
    file.write_bytes(detector())
    words = {rate: ("--input-shape", "32", "--constant", f"sr={rate}") for rate in (8000, 16000)}
    for rate in words:
        import_file(file, tmp_path / f"{rate}", words[rate])
    came = {}
    with served(*(tmp_path / f"{rate}" for rate in words)) as (client, _, _):
        for rate in words:
            steps = windows(sound(rate, 0.05), 28, 4)
            came[rate] = streamed(client, f"{rate}", "speaker", steps)
            np.testing.assert_array_equal(came[rate], looped(file, steps, {"sr": rate}))
            assert len(np.unique(came[rate])) == len(steps)


def test_every_file_of_the_wheel(tmp_path: Path) -> None:
    folder = folder_of_the_wheel(ROOT / FETCHED)
    if folder is None:
        pytest.skip("silero-vad's files are not here: `make silero` fetches them")
    unknown = {path.name for path in folder.glob("*.onnx")} - {variant.file for variant in VARIANTS}
    assert not unknown, "a newer wheel has further files"
    variants = [variant for variant in VARIANTS if (folder / variant.file).exists()]
    for variant in variants:
        import_file(folder / variant.file, tmp_path / variant.name, variant.words)
    with served(*(tmp_path / variant.name for variant in variants)) as (client, _, _):
        for variant in variants:
            steps = windows(sound(variant.rate, 1.0), variant.samples, variant.context)
            came = streamed(client, variant.name, "speaker", steps)
            expected = looped(folder / variant.file, steps, variant.constants)
            np.testing.assert_array_equal(came, expected, err_msg=variant.name)
            assert len(np.unique(came)) == len(steps)


def test_the_readme_tells_of_every_file() -> None:
    assert {variant.file for variant in VARIANTS} == set(re.findall(r"`(silero_vad\w*\.onnx)`", README))
    for variant in VARIANTS:
        assert " ".join(variant.words) in README
