"""Every public name of the client has a docstring with all its arguments; both clients take the same arguments."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import cellkeeper
import pytest
from cellkeeper import AsyncClient, AsyncGroup, AsyncSession, Client, Group, Session
from numpy.typing import ArrayLike

FACES: list[tuple[type, type]] = [(Client, AsyncClient), (Session, AsyncSession), (Group, AsyncGroup)]
CLASSES = [kind for pair in FACES for kind in pair]


def own_names(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


def members(kind: type) -> dict[str, Any]:
    """Returns the functions of its public methods and properties, by name, without those from other libraries."""
    found = {}
    for name in own_names(kind):
        owner = next(base for base in kind.__mro__ if name in vars(base))
        member = inspect.getattr_static(kind, name)
        member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if owner.__module__.partition(".")[0] == cellkeeper.__name__ and inspect.isfunction(member):
            found[name] = member
    return found


PUBLIC = [getattr(cellkeeper, name) for name in cellkeeper.__all__ if isinstance(getattr(cellkeeper, name), type)]
DOCUMENTED = {
    f"{kind.__name__}.{name}": inspect.getattr_static(kind, name) for kind in CLASSES for name in own_names(kind)
}


@pytest.mark.parametrize(("name", "what"), DOCUMENTED.items(), ids=DOCUMENTED)
def test_a_name_says_what_it_is_and_names_its_arguments(name: str, what: Any) -> None:
    text = inspect.getdoc(what) or ""
    assert text, f"{name} has no docstring"
    assert not re.search(r"\b[Ss]ee (Async)?(Client|Session|Group)\b", text), f"{name} sends its reader elsewhere"
    if callable(what):
        arguments = [argument for argument in inspect.signature(what).parameters if argument != "self"]
        missing = [argument for argument in arguments if not re.search(rf"\b{argument}\b", text)]
        assert not missing, f"{name} does not say what these are: {missing}"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_names_its_parameters(kind: type) -> None:
    text = kind.__doc__ or ""
    parameters = inspect.signature(kind).parameters
    assert [name for name in parameters if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("name", cellkeeper.__all__)
def test_an_exported_name_has_a_docstring_of_its_own(name: str) -> None:
    what = getattr(cellkeeper, name)
    text = vars(what).get("__doc__") if isinstance(what, type) else what.__doc__
    assert text
    assert not text.startswith(f"{name}("), "made by dataclass"
    if isinstance(what, type) and issubclass(what, Exception):
        assert name in (inspect.getmodule(what).__doc__ or "")


@pytest.mark.parametrize("kind", [kind for kind in PUBLIC if dataclasses.is_dataclass(kind)])
def test_a_dataclass_says_what_its_fields_are(kind: type) -> None:
    names = [item.name for item in dataclasses.fields(kind) if not item.name.startswith("_")]
    assert [name for name in names if not re.search(rf"\b{name}\b", kind.__doc__ or "")] == []


MEMBERS = {f"{kind.__name__}.{name}": member for kind in PUBLIC for name, member in members(kind).items()}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_says_shapes_units_and_errors(name: str) -> None:
    assert lacking(MEMBERS[name]) == []


def test_members_without_them_are_found() -> None:
    async def step(x: ArrayLike, *, timeout: float = 1.0) -> None: ...

    assert lacking(step) == ["a docstring"]
    step.__doc__ = "x, timeout: as you like."
    assert lacking(step) == ["a shape such as [T, F]", "a unit of time", "what it raises"]
    step.__doc__ = "x: [T, F]. timeout: seconds. Raises StepGap."
    assert lacking(step) == []


def lacking(call: Callable[..., Any]) -> list[str]:
    """Returns what a public function's docstring should mention but does not."""
    text = inspect.getdoc(call) or ""
    if not text:
        return ["a docstring"]
    hints = {what: str(hint) for what, hint in call.__annotations__.items()}
    arrays = any(re.search(r"\b(ArrayLike|Array|Rows)\b", hint) for hint in hints.values())
    found = []
    if arrays and not re.search(r"\[[\w+*. ]+(, [\w+*. ]+)*\]", text):
        found.append("a shape such as [T, F]")
    if {"timeout", "ttl", "idle"} & set(hints) and "seconds" not in text:
        found.append("a unit of time")
    if inspect.iscoroutinefunction(call) and not re.search(r"\b[Rr]aises\b", text):
        found.append("what it raises")
    return found


OTHER_TEXTS = {
    Client: {"close", "carry_over", "delete_many"},  # WrongEventLoop; whose thread calls window_of; an example
    Session: {"stream"},  # an asynchronous source
    Group: set[str](),
}
"""The names whose docstrings differ between the classes."""


@pytest.mark.parametrize(("blocking", "core"), FACES)
def test_both_faces_say_the_same(blocking: type, core: type) -> None:
    """So what is demanded of one of them above, such as the errors that a call raises, holds for the other."""
    texts = {
        kind: {name: (inspect.getdoc(member) or "").split() for name, member in members(kind).items()}
        for kind in (blocking, core)
    }
    shared = set(texts[blocking]) & set(texts[core])
    said = {name: [word.replace("Async", "") for word in texts[core][name]] for name in shared}
    assert {name for name in shared if texts[blocking][name] != said[name]} == OTHER_TEXTS[blocking]


DIFFERENCES: dict[type, tuple[set[str], set[str]]] = {
    Client: ({"counters"}, {"disown"}),
    Session: ({"id", "model", "created", "last_reply"}, set()),
    Group: ({"model", "last_reply"}, set()),
}
"""The names that only the blocking class has, and those that only the other one has. What one class has as a property
and the other as an attribute is such a name; `disown` is for the package itself."""


def signature(call: Callable[..., Any]) -> list[tuple[Any, ...]]:
    """Returns the parameters' names, kinds, defaults and types, in the blocking client's terms."""
    parameters = []
    for item in inspect.signature(call).parameters.values():
        hint = re.sub(r"Iterable\[(\w+)\] \| AsyncIterable\[\1\]", r"Iterable[\1]", str(item.annotation))
        parameters.append((item.name, item.kind, item.default, hint))
    return parameters


@pytest.mark.parametrize(("blocking", "core"), FACES)
def test_both_faces_have_the_same_names_and_signatures(blocking: type, core: type) -> None:
    ours, theirs = set(own_names(blocking)), set(own_names(core))
    assert (ours - theirs, theirs - ours) == DIFFERENCES[blocking]
    for name in ours & theirs:
        one, other = getattr(blocking, name), getattr(core, name)
        assert callable(one) == callable(other), name
        if callable(one):
            assert signature(one) == signature(other), name
    if blocking is Client:
        assert signature(Client.__init__) == signature(AsyncClient.__init__)
