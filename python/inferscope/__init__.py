"""Scopes and marks of your own in an InferScope recording.

    from inferscope import scope, mark_event

    with scope("prefill", tokens=128):
        ...

    @scope("decode_step")
    async def decode_step(): ...

    mark_event("first_token", {"request": 7})

All of it does nothing while no recording runs, so it can stay in production code.
"""

# This runs before the recorded program does: what takes time to import is imported where it is used.
TYPE_CHECKING = False
try:
    from inferscope import _inferscope as _probe
except ImportError:  # installed from PyPI, or not run under isc-record
    _probe = None  # type: ignore[assignment]

if TYPE_CHECKING or _probe is None:
    from inferscope._plain import mark_event, scope
else:
    scope, mark_event = _probe.scope, _probe.mark_event

    def _text(metadata):
        from inferscope._plain import text

        return text(metadata)

    def _decorate(name, metadata, function):
        from inferscope._plain import decorate

        return decorate(scope, name, metadata or {}, function)

    async def _enter(this):
        return this.__enter__()

    async def _leave(this, kind, error, traceback):
        this.__exit__(kind, error, traceback)

    _probe.helpers(_text, _decorate, _enter, _leave)

__all__ = ["scope", "mark_event", "pause", "resume", "recording"]
__version__ = "0.1.0"


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
