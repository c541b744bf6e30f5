"""The engine that starts a server, waits until it answers, and is its client from then on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pytest_qwen.engines import LOAD_TIMEOUT
from pytest_qwen.engines.base import Likelihood, Loaded, LoadSpec, Pair, Request, Trace
from pytest_qwen.engines.endpoint import EndpointEngine
from pytest_qwen.engines.launching import Launch, Options, launch, options_of
from pytest_qwen.engines.served_folders import cache_home, written, written_gguf, written_with_weights
from pytest_qwen.engines.server_process import ServerProcess, free_port
from pytest_qwen.engines.servers import SERVERS
from pytest_qwen.engines.start_failures import Ending, death, failure, log_in_words, port_taken
from pytest_qwen.errors import EngineFault, Misuse, ModelUnusable, Unavailable, explain
from pytest_qwen.streams import LoadSummary

_PORTS_TRIED = 3
_DEFAULT_LOAD_S = 900.0
# Kept of the time for loading, to end the server and tell its last words before all is ended from outside.
_LAST_WORDS_S = 15.0
# a server whose answer broke off gets this long to end, so that its death is told and not its symptom
_DYING_S = 1.0


class ServerEngine:
    """One managed server on a loopback port of its own: vLLM, SGLang, llama.cpp, transformers serve, Ollama.

    Everything that a load asks of it stands in its row of `servers`. It is to be run in a child
    process, whose guard also ends servers that this object no longer can.
    """

    def __init__(self) -> None:
        """Nothing is started."""
        self._process: ServerProcess | None = None
        self._client: EndpointEngine | None = None
        self._spec: LoadSpec | None = None
        self._options = Options()

    def load(self, spec: LoadSpec) -> Loaded:
        """Start the server, load the model, connect.

        Raises Misuse and Unavailable for what this server cannot do, NotInstalled when it is not there,
        ModelUnusable, DoesNotFit, and EngineFault when it ends or does not answer in time.
        """
        self._spec, self._options = spec, options_of(spec)
        deadline_s = time.monotonic() + _patience_s(float(os.environ.get(LOAD_TIMEOUT, _DEFAULT_LOAD_S)))
        launch(spec, self._options, spec.model, 0)  # what cannot be is said before anything is written
        source = _source_of(spec)
        begun_s = time.monotonic()  # what was written for random weights is no part of the load
        try:
            process = self._started(spec, source, deadline_s)
            ready_s = time.monotonic() - begun_s
            self._client = EndpointEngine()
            with self._watched("connecting"):
                loaded = self._client.load(_for_client(spec, self._options, process.launch))
        except BaseException:
            self.close()
            raise
        return replace(
            loaded,
            load_s=ready_s,
            applied=(f"started {process.launch.shown}", *loaded.applied),
            versions={**_version_of(spec.engine), **loaded.versions},
        )

    def _started(self, spec: LoadSpec, source: str, deadline_s: float) -> ServerProcess:
        """A server that answers; another port is tried when one was taken meanwhile."""
        for left in reversed(range(_PORTS_TRIED)):
            process = ServerProcess(launch(spec, self._options, source, free_port()))
            self._process = process
            if process.await_ready(deadline_s):
                return process
            ending, log = self._ending(process), process.log()
            process.stop()
            if ending is None:
                raise _too_slow(spec, process.launch, log)
            if not left or not port_taken(ending):
                raise failure(ending)
        raise AssertionError("unreachable: the last port raises")

    def _ending(self, process: ServerProcess) -> Ending | None:
        """How a process ended; None while it runs."""
        status = process.status
        if status is None:
            return None
        row = process.launch.server
        return Ending(
            server=row.name,
            model=self._spec.model if self._spec else "",
            command=process.launch.shown,
            install=row.install,
            status=status,
            log=process.log(),
        )

    def run(self, request: Request, on_token: Callable[[str], None] | None = None) -> Trace:
        """Do one request, or a slice of a load. Raises what the client raises, or that the server died."""
        client = self._ready()
        with self._watched("answering"):
            return client.run(request, on_token)

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, counted by the server where it can."""
        client = self._ready()
        with self._watched("counting tokens"):
            return client.count_tokens(text)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`, where the server gives them."""
        client = self._ready()
        with self._watched("encoding"):
            return client.encode(text)

    def score(self, pairs: Sequence[Pair]) -> tuple[Likelihood, ...]:
        """How likely each continuation is, where the server can say."""
        client = self._ready()
        with self._watched("scoring"):
            return client.score(pairs)

    def rest(self) -> LoadSummary | None:
        """End the load that is kept up."""
        if self._client is None:
            return None
        with self._watched("ending the load"):
            return self._client.rest()

    def sleep(self, level: int = 1) -> float:
        """Have the server give its memory back and stay; seconds that it took.

        Level 1 keeps the weights in the host's memory, level 2 drops them. Raises Misuse when it was not
        started for it, Unavailable when it cannot.
        """
        client = self._ready()
        self._check_sleeps()
        with self._watched("going to sleep"):
            return client.sleep(level)

    def wake(self) -> float:
        """Have the server take its memory again; seconds until it answers."""
        client = self._ready()
        self._check_sleeps()
        with self._watched("waking"):
            return client.wake()

    def close(self) -> None:
        """End the client, then the server with its process group; safe to call twice and after a fault."""
        client, self._client = self._client, None
        process, self._process = self._process, None
        if client is not None:
            with contextlib.suppress(Exception):  # the server is ended whatever its client says
                client.close()
        if process is not None:
            process.stop()

    def _ready(self) -> EndpointEngine:
        if self._client is None:
            raise EngineFault("nothing is loaded: load() was not called, or close() was")
        return self._client

    def _check_sleeps(self) -> None:
        """Whether the server has a sleep mode, and was started with it."""
        engine = self._spec.engine if self._spec else ""
        able = [row.name for row in SERVERS.values() if "sleep" in row.flags]
        if engine not in able:
            raise Unavailable(
                explain(
                    f"{engine} has no sleep mode",
                    asked="llm.sleep() or llm.wake()",
                    next_step="compare with a load of its own: llm.loaded.load_s",
                    choices=able,
                )
            )
        if not self._options.sleep:
            raise Misuse(
                explain(
                    f"this {engine} was not started with its sleep mode",
                    asked="llm.sleep() or llm.wake()",
                    next_step='@model(..., options={"sleep": True})',
                )
            )

    @contextlib.contextmanager
    def _watched(self, doing: str) -> Iterator[None]:
        """What went wrong with a server that is gone is that it is gone."""
        try:
            yield
        except (EngineFault, Unavailable, ModelUnusable) as error:
            process = self._process
            ending = self._ending(process) if process is not None and process.ends_within(_DYING_S) else None
            if ending is None:
                raise
            raise death(ending, doing) from error


def _patience_s(timeout_s: float) -> float:
    return timeout_s - min(_LAST_WORDS_S, timeout_s / 2)


def _source_of(spec: LoadSpec) -> str:
    """What the server is told to serve: a name, a folder or a file; made first for random weights."""
    if spec.engine == "transformers-serve":
        _make_hub_cache()
    if spec.weights != "dummy":
        local = Path(spec.model).expanduser()
        return str(local) if local.exists() else spec.model
    if spec.engine == "llama-cpp":
        return str(written_gguf(spec.model, spec.seed))
    if spec.engine == "transformers-serve":
        from pytest_qwen.engines.dummy_weights import save

        return str(written_with_weights(spec.model, spec.seed, save))
    return str(written(spec.model))


def _make_hub_cache() -> None:
    """The hub's cache folder: `transformers serve` fails to list its models where there is none yet."""
    home = Path(os.environ.get("HF_HOME") or cache_home() / "huggingface")
    Path(os.environ.get("HF_HUB_CACHE") or home / "hub").mkdir(parents=True, exist_ok=True)


def _for_client(spec: LoadSpec, options: Options, launched: Launch) -> LoadSpec:
    """The load as the client sees it: a URL, and the name under which the server knows the model."""
    model = spec.model if launched.server.alias or launched.server.address is None else launched.source
    known = {"url": launched.url, "dialect": launched.server.dialect, **dict(options.client)}
    return replace(spec, model=model, options=tuple(sorted(known.items())))


def _too_slow(spec: LoadSpec, launched: Launch, log: str) -> EngineFault:
    return EngineFault(
        explain(
            f"{spec.engine} did not answer in the time for loading",
            asked=launched.shown,
            found=f"no answer of {launched.server.ready}; {log_in_words(log)}",
            next_step="more time with --qwen-load-timeout=SECONDS",
        ),
        "hang",
    )


def _version_of(engine: str) -> dict[str, str]:
    """The version of the server's package, where this Python has it."""
    package = SERVERS[engine].package
    try:
        return {package: version(package)} if package else {}
    except PackageNotFoundError:
        return {}
