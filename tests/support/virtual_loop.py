"""An event loop whose time passes at once: what waits five seconds takes no time to test."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Lets the loop's own time pass instead of waiting; nobody outside may wake it."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits for somebody else"
            self.passed += max(0.0, timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 1000 and moves when there is nothing to do."""

    def __init__(self) -> None:
        self._selector_of_time = _Selector()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return 1000.0 + self._selector_of_time.passed


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end; whatever it began and left running is an error."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(work)
        loop.run_until_complete(asyncio.sleep(1))
        left = asyncio.all_tasks(loop)
        assert not left, left
        return result
    finally:
        loop.close()
