"""An asyncio loop in a thread of its own, with timers as exact as the kernel's."""

from __future__ import annotations

import asyncio
import select
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _ExactSelector(selectors.DefaultSelector):
    """Waits for microseconds: epoll_wait counts in milliseconds, and asyncio rounds up to them."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready files, after `timeout` seconds at the latest."""
        if timeout is not None and timeout >= 0.001:  # the whole milliseconds first; asyncio asks again
            return super().select((int(timeout * 1e3) - 0.5) / 1e3)
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


class LoopThread:
    """A running loop; `call` does a coroutine in it from another thread.

    `on_crash` is told of an exception that a callback of the loop let out.
    """

    def __init__(self, on_crash: Callable[[BaseException], None] = lambda _error: None) -> None:
        self.loop = asyncio.SelectorEventLoop(_ExactSelector())
        self.loop.set_exception_handler(lambda _loop, context: self._crashed(context))
        self.on_crash = on_crash
        self._thread = threading.Thread(target=self.loop.run_forever, name="qwen-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's value, when it is there. Raises what it raises."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread; safe to call twice."""
        if self.loop.is_closed():
            return
        self.call(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _crashed(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.on_crash(error if error is not None else RuntimeError(context.get("message", "unknown")))


async def _cancel_others() -> None:
    """Cancel what still runs, and let it end."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
