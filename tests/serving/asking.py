"""A plain client for the tests of servers: the standard library's, which has none of our own code in it."""

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WORDS = {"messages": [{"role": "user", "content": "one two three"}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer as it came: events are the JSON of its data lines, `done` whether [DONE] was there."""

    status: int
    headers: dict[str, str]
    text: str
    started_ns: int
    ended_ns: int

    @property
    def data(self) -> list[str]:
        lines = self.text.split("\n\n")
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data if line != "[DONE]"]

    @property
    def done(self) -> bool:
        return "[DONE]" in self.data

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.text)

    @property
    def words(self) -> list[str]:
        """The text of each event that has any."""
        choices = [event["choices"][0] for event in self.events if event["choices"]]
        texts = [one.get("text", one.get("delta", {}).get("content")) for one in choices]
        return [text for text in texts if text]


def ask(
    url: str,
    path: str = "/chat/completions",
    *,
    method: str = "POST",
    key: str = "",
    timeout: float = 10.0,
    **body: Any,
) -> Said:
    """One request on a connection of its own; what http.client raises, this raises."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    started = time.monotonic_ns()
    try:
        connection.request(method, parts.path + path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return Said(
            status=answer.status,
            headers=dict(answer.headers.items()),
            text=text,
            started_ns=started,
            ended_ns=time.monotonic_ns(),
        )
    finally:
        connection.close()


def stream(url: str, **body: Any) -> Said:
    """A streamed chat of a few tokens that asks for the counts."""
    asked = {
        "model": "mock",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 6,
        **WORDS,
    }
    return ask(url, **(asked | body))
