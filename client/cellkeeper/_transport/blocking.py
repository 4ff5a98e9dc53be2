"""What the blocking classes share: each has an object of an asyncio class, which works in the client's thread."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from .._session.not_copied import NotCopied
from .loop_thread import LoopThread

Core = TypeVar("Core", covariant=True)
C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")


class Blocking(NotCopied, Generic[Core]):
    """A blocking object. core: the asyncio one that it uses. thread: where that works."""

    def __init__(self, thread: LoopThread, core: Core) -> None:
        self._thread = thread
        self._core = core

    def __repr__(self) -> str:
        return repr(self._core).replace(type(self._core).__name__, type(self).__name__, 1)


def blocking(
    method: Callable[Concatenate[C, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Blocking[C], P], R]:
    """Returns the method of a blocking class that runs `method` of the asyncio class and waits for its result."""

    @wraps(method)
    def call(self: Blocking[C], /, *arguments: P.args, **options: P.kwargs) -> R:
        return self._thread.run(method(self._core, *arguments, **options))

    return call


def declared_as(
    method: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Gives the decorated method the parameters and the docstring of `method`, to which it passes them on."""

    def declare(function: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        returned = signature(function).return_annotation
        function.__signature__ = signature(method).replace(return_annotation=returned)  # type: ignore[attr-defined]
        function.__doc__ = method.__doc__
        return function

    return declare
