"""The weekly CO2 record of Mauna Loa, March 1958 to December 2001, as statsmodels ships it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from statsmodels.datasets import co2

Floats = NDArray[np.float32]

CENTRE_PPM = 340.0


class Series(NamedTuple):
    """A weekly series. weeks: datetime64[D] [N], each week's Saturday. ppm: float32 [N], NaN if no sample was taken."""

    weeks: NDArray[np.datetime64]
    ppm: Floats


def load_series() -> Series:
    """Returns all 2,284 weeks, 59 of them without a sample."""
    frame: Any = co2.load_pandas().data
    weeks = frame.index.to_numpy().astype("datetime64[D]")
    return Series(weeks, frame["co2"].to_numpy().astype(np.float32))


def variant(ppm: Floats, shift_ppm: float, scale: float) -> Floats:
    """Returns another station's series: swings and growth scaled by `scale`, everything `shift_ppm` higher."""
    return (CENTRE_PPM + (ppm - CENTRE_PPM) * scale + shift_ppm).astype(np.float32)


def held(ppm: Floats) -> Floats:
    """Returns the series with missing values replaced by the previous one, like the bundle's policy "hold"."""
    last = np.maximum.accumulate(np.where(np.isnan(ppm), 0, np.arange(len(ppm))))
    return np.asarray(ppm[last], dtype=np.float32)
