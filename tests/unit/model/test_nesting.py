from __future__ import annotations

import json
from typing import Any

import pytest
from cellkeeper_service.nesting import MAX_DEPTH, is_too_deep
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(alphabet='[]{}"\\ aü', max_size=8)
values = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=30,
)


def depth(value: Any) -> int:
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(value=values, around=st.integers(MAX_DEPTH - 8, MAX_DEPTH + 2), ascii_only=st.booleans(), kind=st.booleans())
def test_strings_and_what_they_escape_do_not_count(value: Any, around: int, ascii_only: bool, kind: bool) -> None:
    for _ in range(around):
        value = [value] if kind else {'"[': value}
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert is_too_deep(text) == (depth(value) > MAX_DEPTH)


@pytest.mark.parametrize("begin", ["[", '{"a":', '[["]]", ', '{"\\\\":[', "[ \n\t"])
def test_a_text_that_is_cut_off(begin: str) -> None:
    assert is_too_deep((begin * (MAX_DEPTH + 1)).encode())
    assert not is_too_deep(begin.encode() * 10 + b'"' + b"[" * 1000)


def test_many_that_are_not_nested() -> None:
    assert not is_too_deep(b"[" + b"[1]," * 60_000 + b"[1]]")
