"""English text that ships with Python: the help pages of `pydoc`. They differ a little between Python versions."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import NamedTuple

import numpy as np

HELD_OUT = 0.1  # of the pages, drawn with a fixed seed


class Pages(NamedTuple):
    """The pages. Whole pages are held out, so that no sentence is in both parts."""

    train: str
    held_out: str


def load_pages() -> Pages:
    texts: dict[str, str] = topics
    names = sorted(texts)
    np.random.default_rng(0).shuffle(names)
    held_out = round(len(names) * HELD_OUT)
    return Pages(*("\n\n".join(texts[name] for name in part) for part in (names[held_out:], names[:held_out])))
