"""The client with a model of several inputs: named inputs are applied exactly once, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper import Client, InvalidArgument, TensorSpec
from cellkeeper.doctor.steps import samples
from cellkeeper_service.engine.load import offline

from testing.two_inputs import AUDIO, VOCABULARY, Array, part, random_steps

STEPS = 24
INPUTS = random_steps(STEPS)


@pytest.fixture(scope="module")
def expected(two_inputs: Path) -> Array:
    """[STEPS, ...]: an offline run over INPUTS."""
    return offline(two_inputs, INPUTS)["prediction"]


def test_the_model_says_what_it_takes(client: Client) -> None:
    model = client.model("two")
    assert model.inputs == (
        TensorSpec("audio", "float32", (AUDIO,)),
        TensorSpec("ids", "int64", (), VOCABULARY),
    )
    assert model.input.nbytes == 4 * AUDIO + 8
    assert "inputs audio float32[3], ids int64[]" in repr(model)
    assert client.model("count").inputs == ()


def test_steps_chunks_and_streams_are_exact(client: Client, session: str, expected: Array) -> None:
    opened = client.session(session, model="two")
    got = [opened.step(part(INPUTS, step)) for step in range(4)]
    got += list(opened.step(part(INPUTS, slice(4, 9))))
    got += list(opened.stream([part(INPUTS, step) for step in range(9, 14)]))
    got += list(opened.stream((part(INPUTS, step) for step in range(14, STEPS)), chunk_steps=4, window=8))
    np.testing.assert_array_equal(np.stack(got), expected, strict=True)
    assert opened.position.step == STEPS


def test_a_structured_array_is_taken_by_its_fields(client: Client, session: str, expected: Array) -> None:
    table = np.zeros(STEPS, [("ids", "i4"), ("audio", "f8", (AUDIO,))])
    for name, values in INPUTS.items():
        table[name] = values
    opened = client.session(session, model="two")
    got = [opened.step(table[0]), *opened.step(table[1:9]), *opened.stream(table[9:])]
    np.testing.assert_array_equal(np.stack(got), expected, strict=True)


@pytest.mark.parametrize("chunk_steps", [1, 2])
def test_masked_values_of_a_structured_array_are_missing_in_a_stream(
    client: Client, session: str, chunk_steps: int
) -> None:
    fields = [("ids", "i4"), ("audio", "f8", (AUDIO,))]
    table: Any = np.ma.masked_array(np.zeros(4, fields), False)
    opened = client.session(session, model="two")
    assert len(list(opened.stream(table, chunk_steps=chunk_steps))) == 4
    table.mask["audio"][3, 0] = True
    with pytest.raises(InvalidArgument, match=r"inputs\[audio\]: .*NaN or infinity"):
        list(opened.stream(table, chunk_steps=chunk_steps))
    with pytest.raises(InvalidArgument, match=r"inputs\[audio\]: .*NaN or infinity"):
        list(opened.stream([table[0], table[3]], chunk_steps=chunk_steps))


def test_a_peek_keeps_nothing(client: Client, session: str, expected: Array) -> None:
    opened = client.session(session, model="two")
    np.testing.assert_array_equal(opened.peek(part(INPUTS, slice(0, 5))), expected[:5], strict=True)
    np.testing.assert_array_equal(opened.step(part(INPUTS, 0)), expected[0], strict=True)


def test_integer_states_are_read_and_set(client: Client, session: str) -> None:
    opened = client.session(session, model="two")
    opened.step(part(INPUTS, slice(0, 3)))
    state = opened.state()
    assert (state["n"].dtype.name, state["n"].tolist()) == ("int64", [3])
    opened.set_state({**state, "n": np.array([2**53 + 1])})
    opened.step(part(INPUTS, 3))
    assert opened.state()["n"].tolist() == [2**53 + 2]


def test_a_session_is_carried_over_by_a_window(client: Client, session: str, expected: Array) -> None:
    opened = client.session(session, model="two")
    opened.step(part(INPUTS, slice(0, 3)))
    opened.carry_over("rerun", window=part(INPUTS, slice(0, 9)))  # of the same version: it stays as it is
    np.testing.assert_array_equal(opened.step(part(INPUTS, 3)), expected[3], strict=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ids": None}, r"inputs: got no ids, expected a dict with each of audio, ids"),
        ({"gain": 1.0}, r"inputs: got 'gain', which is not one of them"),
        ({"audio": np.zeros(AUDIO + 1)}, r"inputs\[audio\]: got shape \[4\], expected \[3\] or \[T, 3\] of float32"),
        ({"audio": np.array([0, np.nan, 0])}, r"inputs\[audio\]: got NaN or infinity at time step 0, feature 1"),
        ({"ids": VOCABULARY}, r"inputs\[ids\]: got token id 5, expected 0\.\.4"),
        ({"ids": 1.5}, r"inputs\[ids\]: got dtype float64"),
        (
            {"ids": [1, 2]},
            r"inputs\[ids\]: got 2 time steps, expected a single time step without a time axis, as for aud",
        ),
        (
            {"audio": np.zeros((1, AUDIO))},
            r"inputs\[ids\]: got a single time step without a time axis, expected 1 time steps, as for audio",
        ),
        ({"audio": np.zeros((65, AUDIO)), "ids": [0] * 65}, r"inputs\[audio\]: got 65 time steps, expected at most 64"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(client: Client, session: str, changes: dict[str, Any], says: str) -> None:
    opened = client.session(session, model="two")
    given = {name: value for name, value in {**part(INPUTS, 0), **changes}.items() if value is not None}
    with pytest.raises(InvalidArgument, match=says):
        opened.step(given)
    with pytest.raises(InvalidArgument, match=says.replace(": got", ": sample 1 of the stream: got")):
        list(opened.stream([part(INPUTS, 0), given]))
    assert opened.position.step == 1


def test_an_array_is_no_dict_of_inputs_nor_a_dict_an_array(client: Client, session: str) -> None:
    with pytest.raises(InvalidArgument, match="inputs: got ndarray, expected a dict with each of audio, ids"):
        client.session(session, model="two").step(INPUTS["audio"][0])
    with pytest.raises(InvalidArgument, match="inputs: got dict, expected"):
        client.session(f"{session}-1", model="count").step({"input": [1.0]})
    with pytest.raises(InvalidArgument, match=r'expected a model whose config\.json has "feedback"'):
        client.session(session, model="two").forecast(part(INPUTS, 0), steps=2)


def test_samples_of_one_chunk_have_the_same_inputs(client: Client, session: str) -> None:
    opened = client.session(session, model="two")
    says = "inputs: sample 1 of the stream: got the inputs 'ids', expected the same as in those before it"
    with pytest.raises(InvalidArgument, match=says):
        list(opened.stream([part(INPUTS, 0), {"ids": 1}], chunk_steps=2))
    with pytest.raises(InvalidArgument, match=r"inputs\[audio\]: sample 1 of the stream: got shape \[2\], expected"):
        list(opened.stream([part(INPUTS, 0), {"audio": [0.0, 1.0], "ids": 1}], chunk_steps=2))


def test_groups_take_rows_of_dicts_by_order_or_by_id(client: Client, session: str, expected: Array) -> None:
    ids = [f"{session}-{number}" for number in range(3)]
    group = client.group(ids, model="two")
    for step in range(2):
        rows = group.step([part(INPUTS, step)] * 3)
        np.testing.assert_array_equal(rows, np.stack([expected[step]] * 3), strict=True)
    np.testing.assert_array_equal(group.peek([part(INPUTS, 2)] * 3)[1], expected[2], strict=True)
    some = group.step({ids[2]: part(INPUTS, slice(2, 6)), ids[0]: part(INPUTS, slice(2, 6))})
    assert list(some) == [ids[2], ids[0]]
    np.testing.assert_array_equal(some[ids[2]], expected[2:6], strict=True)
    table = np.zeros((1, 3), [("audio", "f4", (AUDIO,)), ("ids", "i8")])
    for name, values in INPUTS.items():
        table[name] = values[6:9]
    group.remove([ids[1], ids[2]])
    np.testing.assert_array_equal(group.step(table), expected[None, 6:9], strict=True)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (part(INPUTS, slice(0, 2)), r"inputs: got 'audio' at 0, expected the id of a member"),
        ([part(INPUTS, 0)], r"inputs: got 1 rows, expected 2 rows, one per member, each a dict of inputs by name"),
        ([part(INPUTS, 0), {"ids": 1}], r"inputs, row 1 \(session '.*-1'\): got no audio"),
        ([part(INPUTS, 0), {**part(INPUTS, 0), "ids": 9}], r"inputs\[ids\], row 1 \(session '.*-1'\): got token id 9"),
        (INPUTS["audio"][:2], r"inputs: got ndarray, expected 2 rows, one per member, each a dict"),
    ],
)
def test_a_groups_rows_are_refused_by_row_and_name(client: Client, session: str, rows: Any, says: str) -> None:
    group = client.group([f"{session}-0", f"{session}-1"], model="two")
    with pytest.raises(InvalidArgument, match=says):
        group.step(rows)


def test_a_member_that_is_called_like_an_input_is_a_member(client: Client) -> None:
    group = client.group(["audio", "ids"], model="two")
    says = r"inputs, row 0 \(session 'audio'\): got ndarray, expected a dict with each of audio, ids"
    with pytest.raises(InvalidArgument, match=says):
        group.step(part(INPUTS, slice(0, 2)))
    assert list(group.step({"audio": part(INPUTS, 0)})) == ["audio"]


def test_the_doctor_steps_it(client: Client, session: str) -> None:
    model = client.model("two")
    opened = client.session(session, model="two")
    assert len([opened.step(row) for row in samples(model)]) == opened.position.step
