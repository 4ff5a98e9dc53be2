"""Compares answers with what one offline run gives, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from testing.wire_client import Position

from .history import Ack, Array, Burst
from .offline import Reference
from .paths import Path
from .verdict import Verdict


class Answer(NamedTuple):
    """One answered part of a burst: its rows first..last - 1 (counted within the burst), and the position after it."""

    burst: Burst
    ack: Ack
    first: int
    last: int
    end: Position


class Comparison:
    """Compares outputs and states. references: by model name. models: model names by session."""

    def __init__(self, references: Mapping[str, Reference], models: Mapping[str, str], verdict: Verdict) -> None:
        self._references = references
        self._models = models
        self._verdict = verdict

    def check(
        self,
        session: str,
        generation: bytes,
        answers: list[Answer],
        path: Path,
        states: list[tuple[int, Mapping[str, Array]]],
    ) -> None:
        for answer in answers:
            self._check_wanted(session, generation, answer)
        reference = self._references[self._models[session]]
        states = states + [(answer.end.step, answer.ack.states) for answer in answers if answer.ack.states]
        if len(path.inputs) and answers:
            expected = reference.outputs(path.inputs, path.states)
            for answer in answers:
                self._compare_outputs(session, generation, answer, path.first_step, expected)
        if states:
            cuts = [step - path.first_step for step, _ in states]
            wanted = reference.states_at(path.inputs, path.states, cuts)
            for (step, got), cut in zip(states, cuts, strict=True):
                self._verdict.compared_states += 1
                if not same_bits(got, wanted[cut]):
                    words = f"the state at step {step} differs from the offline run's"
                    self._verdict.found("mismatched", session, generation, words)

    def _check_wanted(self, session: str, generation: bytes, answer: Answer) -> None:
        """Checks that the answer has what it was asked for: what is not there cannot differ."""
        got = {*answer.ack.outputs, *(["state"] if answer.ack.states else [])}
        if got != set(answer.burst.wanted):
            words = f"{answer.burst.sender}: asked for {sorted(answer.burst.wanted)}, got {sorted(got)}"
            self._verdict.found("mismatched", session, generation, words)

    def _compare_outputs(
        self, session: str, generation: bytes, answer: Answer, first_step: int, expected: Mapping[str, Array]
    ) -> None:
        first = answer.end.step - answer.ack.rows - first_step
        for name, got in answer.ack.outputs.items():
            wanted = expected[name][first : first + answer.ack.rows]
            self._verdict.compared_rows += answer.ack.rows
            if got.tobytes() != wanted.tobytes():
                rows = [i for i in range(min(len(got), len(wanted))) if got[i].tobytes() != wanted[i].tobytes()]
                step = answer.end.step - answer.ack.rows + (rows[0] if rows else 0)
                words = (
                    f"{answer.burst.sender}: {name} of {len(rows)} steps from {step} on differs from the offline run's"
                )
                self._verdict.found("mismatched", session, generation, words)


def same_bits(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> bool:
    """Returns True if the tensors are the same, bit for bit."""
    if got.keys() != wanted.keys():
        return False
    return all(np.ascontiguousarray(got[name]).tobytes() == wanted[name].tobytes() for name in wanted)
