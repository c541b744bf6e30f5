"""One HTTP request and what came of it, with the time of every packet."""

from __future__ import annotations

from collections.abc import Callable

from pytest_qwen.engines.http_framing import Framer
from pytest_qwen.streams import State

BODY_LIMIT = 268_435_456  # bytes of one answer


class Exchange:
    """One request and what came of it. Times are nanoseconds of the monotonic clock.

    `due_ns` is when it should be sent, `sent_ns` when it was, `end_ns` when its answer ended. A failure is
    its state and words. `on_end` is called once, `on_data` after each packet: with it, packets are
    looked into at once, else when the answer seems to be over.
    """

    __slots__ = (
        "due_ns",
        "end_ns",
        "failure",
        "framer",
        "last_ns",
        "on_data",
        "on_end",
        "packets",
        "request",
        "sent_ns",
        "size",
        "tag",
        "used_before",
    )

    def __init__(
        self,
        request: bytes,
        on_end: Callable[[Exchange], None],
        *,
        due_ns: int | None = None,
        on_data: Callable[[Exchange], None] | None = None,
        tag: object = None,
    ) -> None:
        self.request = request
        self.on_end = on_end
        self.on_data = on_data
        self.due_ns = due_ns
        self.tag = tag
        self.sent_ns = 0
        self.last_ns = 0
        self.end_ns = 0
        self.size = 0
        self.used_before = False
        self.packets: list[tuple[int, bytes]] = []
        self.framer = Framer()
        self.failure: tuple[State, str] | None = None

    @property
    def body(self) -> bytes:
        """All of the body that came."""
        return b"".join(piece for _, piece in self.framer.body)

    def read(self) -> None:
        """Look into the packets that came. Raises NotHttp."""
        packets, self.packets = self.packets, []
        for ns, data in packets:
            self.framer.feed(ns, data)
