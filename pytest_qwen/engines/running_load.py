"""A load that goes on, with what it needs around it: a quiet interpreter, the pages that the server shows."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pytest_qwen.engines.http_stream import HttpClient
from pytest_qwen.engines.load_generator import LoadGenerator
from pytest_qwen.engines.loops import LoopThread
from pytest_qwen.engines.server_facts import facts
from pytest_qwen.streams import LoadSummary

# While a load runs the loop's thread gets the interpreter within this long (Python's default is 5 ms).
_SWITCH_S = 0.0005
_PAGE_EVERY_S = 2.0
_PAGE_S = 5.0  # a page of figures that takes longer is done without


class RunningLoad:
    """A load that goes on, with what it needs around it: a quiet interpreter, the server's figures."""

    def __init__(self, generator: LoadGenerator, client: HttpClient, metrics: str | None) -> None:
        self.generator = generator
        self.quiet = quiet_interpreter()
        self._client, self._metrics = client, metrics
        self._pages: list[bytes] = []
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin the load, and to read what the server shows."""
        self.quiet.__enter__()
        if self._metrics is not None:
            await self._page()
            self._reading = asyncio.get_running_loop().create_task(self._read())
        await self.generator.start()

    def end(self, thread: LoopThread) -> LoadSummary:
        """End it; gives what it was."""
        try:
            if self._metrics is not None:
                thread.call(self._last_page())
            summary = thread.call(self.generator.stop())
        finally:
            self.quiet.__exit__(None, None, None)
        told = facts([page.decode("utf-8", "replace") for page in self._pages])
        return replace(summary, server=told)

    async def _read(self) -> None:
        while True:
            await asyncio.sleep(_PAGE_EVERY_S)
            await self._page()

    async def _last_page(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._page()

    async def _page(self) -> None:
        """One more page; read into figures when the load is over, since that takes time."""
        try:
            async with asyncio.timeout(_PAGE_S):
                exchange = await self._client.fetch("GET", str(self._metrics))
        except TimeoutError:
            return
        if exchange.failure is None and exchange.framer.status == 200:
            self._pages.append(exchange.body)


@contextmanager
def quiet_interpreter() -> Iterator[None]:
    """No garbage collection in the meantime, and a loop that gets the interpreter soon."""
    before_s, collects = sys.getswitchinterval(), gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)
        gc.unfreeze()
        if collects:
            gc.enable()
