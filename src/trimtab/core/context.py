"""What a step can say while it runs; outside a run it says nothing, so that steps stay unit-testable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from trimtab.core.digest import canonical
from trimtab.core.errors import WrongUse


class Recorder:
    """Keeps what a step logs: metrics as ``(name, step, value)`` and params."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, int, float]] = []
        self.params: dict[str, Any] = {}


_CURRENT: ContextVar[Recorder | None] = ContextVar("trimtab_recorder", default=None)


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Send what is logged inside the block to ``recorder``."""
    token = _CURRENT.set(recorder)
    try:
        yield recorder
    finally:
        _CURRENT.reset(token)


def log(*, step: int = 0, **values: Any) -> None:
    """Log metrics (numbers) and params (anything else that is plain data) of the step that is running.

    Args:
        step: the iteration that the metrics belong to.
        values: name = value.

    Raises:
        WrongUse: a value is not plain data.
    """
    recorder = _CURRENT.get()
    for name, value in values.items():
        number = getattr(value, "item", None)
        plain = number() if callable(number) else value
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            if recorder is not None:
                recorder.metrics.append((name, step, float(plain)))
            continue
        try:
            canonical(plain)
        except WrongUse as error:
            raise WrongUse(f"cannot log {name}: {error.message}", fix=error.fix) from error
        if recorder is not None:
            recorder.params[name] = plain
