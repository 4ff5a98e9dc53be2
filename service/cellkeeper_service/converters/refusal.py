"""The error for a model that cannot be imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cellkeeper_service.errors import StartError
from cellkeeper_service.model.fields import one_line

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # how Keras and torch print errors in colours
LONGEST = 800  # characters: what came, what was expected and what to do, with quotes of other libraries

BACKWARD = "the backward direction starts at the end, which a stream has not reached"
HALF_PRECISION = (
    "computes in {}, expected float32; make the model again with keras.config.set_dtype_policy('float32'), and load "
    "its weights"
)
QUANTIZED = "quantized, expected float weights; pass the {} as it was before it was quantized"


class ImportRefused(StartError):
    """A model cannot be imported; nothing was written. The message is one line: where, what came, what was expected.

    place: the file, layer, tensor or argument.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{one_line(place)}: {one_line(reason, LONGEST)}")
        self.place = place
        self.reason = reason


class NotRead(ImportRefused):
    """The import cannot read this as layers. The model's own framework may still trace it."""


@contextmanager
def refusing(place: str, what: str, instead: str = "", longest: int = 120) -> Iterator[None]:
    """Raises ImportRefused for any error that code of others raises within: a user's module may raise anything, and the
    errors of some libraries have no common base.

    what: fails. instead: what to do about it. longest: characters of the error that are quoted.
    """
    try:
        yield
    except ImportRefused:
        raise
    except Exception as error:
        quoted = f"{what} ({one_line(_COLOURS.sub('', str(error)), LONGEST)[:longest]})"
        raise ImportRefused(place, f"{quoted}; {instead}" if instead else quoted) from error
