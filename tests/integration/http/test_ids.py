"""Ids of any characters in an address; and what is no id."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from .front import Front, sums


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "a/b",
        "a%b",
        "%2F",
        "a b",
        "?x=1",
        "#x",
        "a;b",
        "a+b",
        "ä",
        "日本語",
        "\U0001f600",
        "\x00",
        "\x7f\r\n",
        '"\\',
        "..a",
        "{x}",
        "[(*",
        "e\u0301",
        "\u202e",
        "x" * 256,
        "\U0001f600" * 64,
    ],
    ids=lambda name: quote(name, safe="")[:24],
)
def test_an_id_may_have_any_characters(front: Front, name: str) -> None:
    session = front.session(name=name)
    at = session.open()
    assert sums(session.step([1], position=at)) == [1]
    found = session.ask("GET").ok
    assert (found["session"], found["position"]["step"]) == (name, 1)
    listed = front.ask("GET", f"/v1/models/count/sessions?prefix={quote(name, safe='')}").ok["sessions"]
    assert [one["session"] for one in listed] == [name]
    target = f"fork of {name}"[:50] if len(name.encode()) > 200 else f"fork of {name}"
    session.ask("POST", "/fork", {"target": target}).ok  # noqa: B018 - raises if it was refused
    assert front.session(name=target).position()["step"] == 1
    for one in (name, target):
        generation = front.session(name=one).position()["generation"]
        assert front.session(name=one).ask("DELETE", f"?generation={generation}").ok == {"deleted": True}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("%ff", "session: got '%ff', expected percent-encoded UTF-8"),
        ("%ed%a0%80", "expected percent-encoded UTF-8"),  # half of a surrogate pair
        ("x" * 257, "session: got 257 bytes, expected 1 to 256 bytes of UTF-8"),
        ("%F0%9F%98%80" * 65, "session: got 260 bytes"),
    ],
)
def test_what_is_no_id_is_refused(front: Front, path: str, text: str) -> None:
    error = front.ask("GET", f"/v1/models/count/sessions/{path}").error
    assert error["reason"] == "INVALID_FIELD"
    assert text in error["message"]
