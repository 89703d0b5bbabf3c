"""What is rare in scopes and marks, and all of them where no probe is: imported where it is used."""

from __future__ import annotations

import functools
import inspect
import json
from typing import Any, Callable, Mapping, Optional, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def text(metadata: Optional[Mapping[str, Any]]) -> str:
    """The metadata as a JSON object; what JSON has no form for is written as its str()."""
    if not metadata:
        return ""
    try:
        return json.dumps(dict(metadata), default=str, allow_nan=False)
    except Exception:
        try:
            return json.dumps({str(key): str(value) for key, value in metadata.items()})
        except Exception:  # a value whose str() raises: the program must not notice
            return ""


def decorate(scope: Any, name: str, metadata: Mapping[str, Any], function: _F) -> _F:
    """`function` with a scope of its own around each call: calls on several threads or tasks may overlap."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def of_coroutine(*args: Any, **kwargs: Any) -> Any:
            with scope(name, **metadata):
                return await function(*args, **kwargs)

        return of_coroutine  # type: ignore[return-value]
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def of_async_generator(*args: Any, **kwargs: Any) -> Any:
            with scope(name, **metadata):
                items = function(*args, **kwargs)
                step, value = items.asend, None
                try:
                    while True:
                        try:
                            item = await step(value)
                        except StopAsyncIteration:
                            return
                        try:
                            step, value = items.asend, (yield item)
                        except GeneratorExit:
                            raise
                        except BaseException as error:
                            step, value = items.athrow, error
                finally:
                    await items.aclose()

        return of_async_generator  # type: ignore[return-value]
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def of_generator(*args: Any, **kwargs: Any) -> Any:
            with scope(name, **metadata):
                return (yield from function(*args, **kwargs))

        return of_generator  # type: ignore[return-value]

    @functools.wraps(function)
    def of_function(*args: Any, **kwargs: Any) -> Any:
        with scope(name, **metadata):
            return function(*args, **kwargs)

    return of_function  # type: ignore[return-value]


class scope:
    """A named stretch of the program: a context manager (also asynchronous) and a decorator.

    As a decorator it covers each call: of a coroutine function until it has finished, of a generator until it is
    exhausted. One object may be entered again while it is open.
    """

    __slots__ = ("_name", "_metadata")

    def __init__(self, name: str, /, **metadata: Any) -> None:
        self._name = str(name)
        self._metadata = metadata

    def __enter__(self) -> scope:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        pass

    async def __aenter__(self) -> scope:
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        pass

    def __call__(self, function: _F) -> _F:
        return decorate(scope, self._name, self._metadata, function)


def mark_event(name: str, metadata: Optional[Mapping[str, Any]] = None) -> None:
    """Mark this instant."""
