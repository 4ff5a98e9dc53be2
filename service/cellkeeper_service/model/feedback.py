"""`feedback` in config.json: for each input feature which predicted value it becomes when the model is rolled out.

    "feedback": [0, "known"]   the first feature is prediction[0]; the caller supplies the second
    "feedback": "argmax"       token ids: the most likely one

Without it a model of features cannot be rolled out: that as many values are predicted as taken does not say that they
are the same ones. A model of token ids that predicts one value for each id is taken to predict the next id.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from cellkeeper_service.domain.feedback import KNOWN, Feedback
from cellkeeper_service.domain.spec import TensorSpec

from .fields import Fields

Sources = Sequence[int | str]  # a text is one, too
GREEDY = "argmax"
SUPPLIED = "known"


def parse_feedback(fields: Fields, features: int, vocabulary: int, predicted: tuple[int, ...] | None) -> Sources | None:
    """What the key "feedback" holds; None where it is not there.

    features: of a time step; 0 for token ids. predicted: the shape of "prediction"; None: the model has none.
    Raises StartError.
    """
    if not fields.has("feedback"):
        return None
    value = fields.any("feedback", "a list or a text")
    width = 0 if predicted is None else prod(predicted)
    if vocabulary:
        if value != GREEDY or width != vocabulary:
            expected = f'"{GREEDY}", with one predicted value for each of {vocabulary} ids (there are {width})'
            raise fields.refuse("feedback", value, expected)
        return GREEDY
    listed = isinstance(value, list | tuple) and len(value) == features
    if not listed or not all(_is_source(item, width) for item in value):
        expected = f'{features} entries, one for each feature: an index below {width} into the prediction, or "known"'
        raise fields.refuse("feedback", value, expected)
    return tuple(value)


def feedback_of(sources: Sources | None, vocabulary: int, outputs: tuple[TensorSpec, ...]) -> Feedback | None:
    """What a bundle's model does when it is rolled out; None: it cannot be."""
    if sources is not None and not isinstance(sources, str):
        return Feedback(tuple(KNOWN if source == SUPPLIED else int(source) for source in sources))
    predicted = next((prod(output.shape) for output in outputs if output.name == "prediction"), 0)
    return Feedback() if vocabulary and predicted == vocabulary else None


def _is_source(item: object, width: int) -> bool:
    return item == SUPPLIED or (type(item) is int and 0 <= item < width)
