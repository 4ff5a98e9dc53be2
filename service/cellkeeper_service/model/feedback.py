"""`feedback` in config.json: which predicted value becomes each input feature when the model is rolled out.

    "feedback": [0, "known"]   the first feature is prediction[0]; the caller supplies the second
    "feedback": "argmax"       token ids: the most likely one
    "feedback": {"pressure": [0, 1], "valve": "known"}
                               several inputs: the model predicts two values of pressure; the caller supplies valve

A model of features cannot be rolled out without it: predicting as many values as it takes does not make them the same
ones. A model of token ids that predicts one value for each id is assumed to predict the next id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from cellkeeper_service.domain.feedback import KNOWN, Feedback, NamedFeedback
from cellkeeper_service.domain.spec import TensorSpec

from .fields import Fields
from .named_inputs import NamedInput

Sources = Sequence[int | str] | Mapping[str, Sequence[int] | str]  # a str is a Sequence, too
GREEDY = "argmax"
SUPPLIED = "known"


def parse_feedback(fields: Fields, features: int, vocabulary: int, predicted: tuple[int, ...] | None) -> Sources | None:
    """Reads the key "feedback"; None if it is missing. Raises StartError.

    features: how many a time step has; 0 for token ids. predicted: the shape of "prediction"; None if the model has no
    such output.
    """
    if not fields.has("feedback"):
        return None
    value = fields.any("feedback", "a list or a string")
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


def parse_named_feedback(
    fields: Fields, inputs: Sequence[NamedInput], predicted: tuple[int, ...] | None
) -> Sources | None:
    """Reads the key "feedback" of a model with several inputs; None if it is missing. Raises StartError."""
    if not fields.has("feedback"):
        return None
    value = fields.any("feedback", "an object")
    width = 0 if predicted is None else prod(predicted)
    names = [one.name for one in inputs]
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise fields.refuse("feedback", value, f"an object with each of the inputs {', '.join(names)}")
    for one in inputs:
        sources = value[one.name]
        fed = isinstance(sources, list | tuple) and len(sources) == prod(one.shape) and not one.vocabulary
        if sources != SUPPLIED and not (fed and all(type(item) is int and 0 <= item < width for item in sources)):
            fits = "" if one.vocabulary else f"{prod(one.shape)} indices below {width} into the prediction, or "
            raise fields.refuse(f"feedback: {one.name}", sources, f'{fits}"known"')
    if all(sources == SUPPLIED for sources in value.values()):
        raise fields.refuse("feedback", value, "at least one input that takes the prediction")
    return {name: sources if sources == SUPPLIED else tuple(sources) for name, sources in value.items()}


def feedback_of(
    sources: Sources | None, vocabulary: int, outputs: tuple[TensorSpec, ...]
) -> Feedback | NamedFeedback | None:
    """Returns the feedback of a bundle's model; None if it cannot be rolled out."""
    if isinstance(sources, Mapping):
        fed = {name: tuple(map(int, given)) for name, given in sources.items() if given != SUPPLIED}
        return NamedFeedback(tuple(fed.items()))
    if sources is not None and not isinstance(sources, str):
        return Feedback(tuple(KNOWN if source == SUPPLIED else int(source) for source in sources))
    predicted = next((prod(output.shape) for output in outputs if output.name == "prediction"), 0)
    return Feedback() if vocabulary and predicted == vocabulary else None


def _is_source(item: object, width: int) -> bool:
    return item == SUPPLIED or (type(item) is int and 0 <= item < width)
