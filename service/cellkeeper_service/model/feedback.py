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

Sources = Sequence[int | str] | Mapping[str, Sequence[int] | str]  # a str is a Sequence, too
GREEDY = "argmax"
SUPPLIED = "known"


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
