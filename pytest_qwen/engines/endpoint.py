"""The engine that is a client of any server with an OpenAI-compatible API: one request, many, or a load."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pytest_qwen.engines.addresses import address_of
from pytest_qwen.engines.answers import status_text
from pytest_qwen.engines.asking import Lengths, Manner, ask, extra_fields, one_prompt
from pytest_qwen.engines.base import Likelihood, Loaded, LoadSpec, Pair, Request, Trace
from pytest_qwen.engines.discovery import Found, Options, discover, with_words
from pytest_qwen.engines.endpoint_faults import Contact, fault
from pytest_qwen.engines.endpoint_options import key_in, options_of
from pytest_qwen.engines.http_exchange import Exchange
from pytest_qwen.engines.http_stream import HttpClient
from pytest_qwen.engines.load_generator import LoadGenerator
from pytest_qwen.engines.loops import LoopThread
from pytest_qwen.engines.running_load import RunningLoad
from pytest_qwen.engines.served_traces import trace_of
from pytest_qwen.engines.together import together
from pytest_qwen.errors import EngineFault, Unavailable, explain
from pytest_qwen.streams import LoadSummary

_SILENCE_S = 60.0  # of requests without a load, as Load.silence_s
_TO_SLEEP = "start it with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1"


class EndpointEngine:
    """An Engine over HTTP. Its times are those of a client, and all counts are the server's own.

    The key is read from the environment variable that the option `key_env` names, and goes into the requests
    alone. Random prompts are token ids where the server takes them, else words.
    """

    def __init__(self) -> None:
        """Nothing is connected yet."""
        self._thread: LoopThread | None = None
        self._client: HttpClient | None = None
        self._found: Found | None = None
        self._load: tuple[Request, RunningLoad] | None = None
        self._summary: LoadSummary | None = None

    def load(self, spec: LoadSpec) -> Loaded:
        """Connect, find out what answers, and try a tiny request.

        Raises Misuse for a wrong URL, option or key, Unavailable when nothing can be reached, ModelUnusable
        for a model that is not there, EngineFault for a server that fails.
        """
        started_s = time.monotonic()
        options = options_of(spec)
        address = address_of(str(options["url"]))
        key_env = str(options["key_env"])
        contact = Contact(url=address.url, key_env=key_env, key=key_in(key_env), model=spec.model)
        asked = Options(
            api=str(options["api"]),
            prompts=str(options["prompts"]),
            dialect=str(options["dialect"]),
            extra=extra_fields(str(options["body"])),
        )
        self._thread = LoopThread(self._crashed)
        self._client = HttpClient(address, key=contact.key, silence_s=_SILENCE_S)
        try:
            self._found = self._thread.call(discover(self._client, contact, asked))
        except BaseException:
            self.close()
            raise
        return _loaded(self._found, time.monotonic() - started_s)

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:
        """One request, `batch_size` of them at once, or the next slice of a load.

        Raises Misuse for an ill-formed request, and whatever a failed one means (see `endpoint_faults`).
        """
        one_prompt(request)
        if request.load is not None:
            return self._slice(request)
        self._end_load()
        thread, client, found = self._ready()
        rows = [
            # a seed for each: equal requests that sample shall not all draw the same answer
            ask(
                found.manner,
                replace(request, seed=request.seed + row),
                f"{request.seed} {row}",
                salt=_salt(request),
            )
            for row in range(request.batch_size)
        ]
        client.silence_s = _SILENCE_S
        answers = thread.call(together(client, rows, on_token))
        for exchange, stream, _ in answers:
            if not stream.complete:
                raise fault(found.contact, stream.state, stream.detail, exchange.framer.status)
        return trace_of([stream for _, stream, _ in answers], [text for _, _, text in answers])

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, counted by the server. Raises Unavailable for one that offers no such route."""
        thread, client, found = self._ready()
        dialect = found.manner.dialect
        if dialect.tokenize is None:
            raise Unavailable(
                explain("this server does not count tokens", found=f"a server of kind {dialect.name!r}")
            )
        if not text:
            return 0
        route, name = dialect.tokenize
        body = {"model": found.manner.model, name: text, "add_special_tokens": False}
        exchange = thread.call(client.fetch("POST", route, json.dumps(body).encode()))
        count = _token_count(exchange) if exchange.framer.status == 200 else None
        if count is None:
            raise Unavailable(explain("this server does not count tokens", asked=f"POST {route}"))
        return count

    def encode(self, text: str) -> tuple[int, ...]:
        """No server says so in one way. Raises Unavailable."""
        raise Unavailable(
            explain(
                "an endpoint gives no token ids", asked=f"{text[:40]!r}", next_step="engine='transformers'"
            )
        )

    def score(self, pairs: Sequence[Pair]) -> tuple[Likelihood, ...]:
        """No server says so in one way. Raises Unavailable."""
        raise Unavailable(
            explain(
                "an endpoint does not rate continuations",
                asked=f"{len(pairs)} pairs",
                next_step="engine='transformers', or a task that generates",
            )
        )

    def sleep(self, level: int = 1) -> float:
        """Put the model to sleep (vLLM: 1 keeps its weights in host memory, 2 drops them); seconds it took.

        Raises Unavailable for a server without such routes.
        """
        return self._switch(f"/sleep?level={level}", asleep=True)

    def wake(self) -> float:
        """Wake the model up; seconds it took. Raises Unavailable for a server without such routes."""
        return self._switch("/wake_up", asleep=False)

    def rest(self) -> LoadSummary | None:
        """End the load; what it was from its first request to its last answer. None when there was none."""
        self._end_load()
        ended, self._summary = self._summary, None
        return ended

    def close(self) -> None:
        """End everything; safe to call twice and after a fault."""
        if self._thread is None:
            return
        thread, client = self._thread, self._client
        self._thread = self._client = self._found = None
        if self._load is not None:
            with contextlib.suppress(Exception):  # closing never fails
                thread.call(self._load[1].generator.stop())
            self._load[1].quiet.__exit__(None, None, None)
            self._load = None
        if client is not None:
            thread.loop.call_soon_threadsafe(client.close)
        thread.close()

    def _ready(self) -> tuple[LoopThread, HttpClient, Found]:
        if self._thread is None or self._client is None or self._found is None:
            raise EngineFault("no endpoint is connected: load() was not called, or close() was")
        return self._thread, self._client, self._found

    def _slice(self, request: Request) -> Trace:
        """The next slice of the load that goes on, or of a new one when something else is asked."""
        thread, client, found = self._ready()
        alike = replace(request, seed=0)
        if self._load is not None and self._load[0] != alike:
            self._end_load()
        if self._load is None:
            self._summary = None
            self._load = (alike, self._begun(thread, client, found, request))
        going = self._load[1]
        part = thread.call(going.generator.next_slice())
        return replace(trace_of(part.streams, part.texts), client=part.client, batch_size=request.batch_size)

    def _begun(self, thread: LoopThread, client: HttpClient, found: Found, request: Request) -> RunningLoad:
        """A load that has just begun."""
        load = request.load
        assert load is not None  # noqa: S101 - asked before
        manner = found.manner
        if load.turns > 1 or (request.prompt_tokens is not None and manner.prompts == "text"):
            manner = _with_history(thread, client, found, load.turns)
        client.silence_s = load.silence_s
        once = secrets.token_hex(8)  # prompts of two loads differ, for the sake of servers without a salt
        generator = LoadGenerator(
            client,
            load,
            lambda number, lengths, history: ask(
                manner,
                request,
                f"{once} {number}",
                lengths=_within(lengths, manner.longest),
                history=history,
                salt=_salt(request),
            ),
            lengths=Lengths(
                prompt=request.prompt_tokens or 0,
                output=request.output_tokens,
                shared=load.shared_prefix_tokens,
            ),
            hide=found.contact.hide,
            seed=request.seed,
        )
        going = RunningLoad(generator, client, found.metrics)
        thread.call(going.start())
        return going

    def _end_load(self) -> None:
        """End the load, if there is one, and keep what it was."""
        if self._load is None:
            return
        going = self._load[1]
        self._load = None
        thread, _, _ = self._ready()
        self._summary = going.end(thread)

    def _switch(self, route: str, *, asleep: bool) -> float:
        """Seconds until a route to sleep or wake has answered, and the server says that it did."""
        self._end_load()
        thread, client, found = self._ready()
        dialect = found.manner.dialect
        if not dialect.sleep:
            raise Unavailable(
                explain(
                    "this server cannot put its model to sleep",
                    found=f"a server of kind {dialect.name!r}",
                    next_step=f"vLLM can: {_TO_SLEEP}",
                )
            )
        client.silence_s = 600.0  # weights of 100 GB take a while, and the route answers at the end alone
        exchange = thread.call(client.fetch("POST", route))
        if exchange.failure is not None:
            raise fault(found.contact, *exchange.failure)
        if exchange.framer.status != 200:
            raise Unavailable(
                explain(
                    "the server does not offer to sleep",
                    asked=f"POST {route.partition('?')[0]}",
                    found=found.contact.hide(status_text(exchange)),
                    next_step=_TO_SLEEP,
                )
            )
        told = thread.call(client.fetch("GET", "/is_sleeping"))
        if told.framer.status == 200 and json.loads(told.body).get("is_sleeping") is not asleep:
            raise EngineFault(f"the server said that it would {'sleep' if asleep else 'wake'}, and did not")
        return (exchange.end_ns - exchange.sent_ns) / 1e9

    def _crashed(self, error: BaseException) -> None:
        """A callback of the loop failed."""
        if self._load is not None:
            self._load[1].generator.crashed(error)


def _with_history(thread: LoopThread, client: HttpClient, found: Found, turns: int) -> Manner:
    """How conversations of several turns are asked for: in words, since token ids know no roles."""
    manner = found.manner
    if turns > 1:
        route = manner.only or "chat"
        manner = replace(manner, prompts="text", route=route)
    if manner.route in manner.words:
        return manner
    return thread.call(with_words(client, found.contact, manner, (manner.route,)))


def _salt(request: Request) -> str:
    """Something new for measured requests, unless finding what was said before is what they are for."""
    load = request.load
    cached = load is not None and (load.shared_prefix_tokens > 0 or load.turns > 1)
    return secrets.token_hex(8) if request.ignore_eos and not cached else ""


def _within(lengths: Lengths, longest: int | None) -> Lengths:
    """The lengths, cut to what the model reads at most."""
    if longest is None or lengths.prompt + lengths.output <= longest:
        return lengths
    output = min(lengths.output, max(1, longest // 2))
    return replace(lengths, prompt=max(1, longest - output), output=output)


def _loaded(found: Found, seconds: float) -> Loaded:
    """What was found, for the record."""
    manner = found.manner
    kind = manner.dialect.name
    prompts = "token ids" if manner.prompts == "tokens" else "words"
    fixed = manner.fixes and manner.dialect.fixed is not None
    return Loaded(
        load_s=seconds,
        applied=(
            f"endpoint {found.contact.url}",
            f"model {manner.model}",
            f"server {kind} {found.version}".rstrip(),
            f"{manner.route} API, random prompts of {prompts}",
            f"answers are {'as long as asked' if fixed else 'as long as the model makes them'}",
            *(() if found.usage else ("the server does not count tokens",)),
        ),
        versions={kind: found.version} if found.version else {},
        tokenizer=f"of the server ({kind})",
        pid=os.getpid(),
    )


def _token_count(exchange: Exchange) -> int | None:
    """The number of tokens in the answer of a route that tokenises."""
    try:
        told = json.loads(exchange.body)
    except ValueError:
        return None
    if isinstance(told, dict):
        told = told.get("count", told.get("tokens"))
    return len(told) if isinstance(told, list) else told if isinstance(told, int) else None
