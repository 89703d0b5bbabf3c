"""Scopes and marks of your own in an InferScope recording.

    from inferscope import scope, mark_event

    with scope("prefill", tokens=128):
        ...

    @scope("decode_step")
    async def decode_step(): ...

    mark_event("first_token", {"request": 7})

All of it does nothing while no recording runs, so it can stay in production code.
"""

from __future__ import annotations

# This runs before the recorded program does: what takes time to import is imported where it is used.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Mapping, Optional, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])

try:
    from inferscope import _inferscope as _probe
except ImportError:  # installed from PyPI, or not run under isc-record
    _probe = None  # type: ignore[assignment]

__all__ = ["scope", "mark_event", "pause", "resume", "recording"]
__version__ = "0.1.0"


def _text(metadata: Optional[Mapping[str, Any]]) -> str:
    """The metadata as a JSON object; what JSON has no form for is written as its str()."""
    if not metadata:
        return ""
    import json

    try:
        return json.dumps(dict(metadata), default=str, allow_nan=False)
    except Exception:
        try:
            return json.dumps({str(key): str(value) for key, value in metadata.items()})
        except Exception:  # a value whose str() raises: the program must not notice
            return ""


class scope:
    """A named stretch of the program: a context manager (also asynchronous) and a decorator.

    As a decorator it covers each call: of a coroutine function until it has finished, of a generator until it is
    exhausted. One object may be entered again while it is open.
    """

    __slots__ = ("_name", "_metadata", "_handles")

    def __init__(self, name: str, /, **metadata: Any) -> None:
        self._name = str(name)
        self._metadata = metadata
        self._handles: List[int] = []

    def __enter__(self) -> "scope":
        handle = 0
        if _probe is not None:
            handle = _probe.scope_enter(self._name, _text(self._metadata))
        self._handles.append(handle)
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        handle = self._handles.pop() if self._handles else 0
        if handle and _probe is not None:
            _probe.scope_exit(handle, kind is not None)

    async def __aenter__(self) -> "scope":
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: _F) -> _F:
        import functools
        import inspect

        name, metadata = self._name, self._metadata
        # A scope of its own for each call: calls on several threads or tasks may overlap.
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


def mark_event(name: str, metadata: Optional[Mapping[str, Any]] = None) -> None:
    """Mark this instant."""
    if _probe is not None and _probe.active():
        _probe.mark(str(name), _text(metadata))


def pause() -> None:
    """Keep no records in this process until `resume`."""
    if _probe is not None:
        _probe.pause()


def resume() -> None:
    """Go on keeping records."""
    if _probe is not None:
        _probe.resume()


def recording() -> bool:
    """Whether records are kept now."""
    return _probe is not None and _probe.active()
