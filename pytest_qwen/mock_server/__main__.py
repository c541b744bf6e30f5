"""`python -m pytest_qwen.mock_server`: serve until interrupted, and print the address."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from pytest_qwen.errors import Misuse
from pytest_qwen.mock_server.script import ServerScript, choices_of, plain_types
from pytest_qwen.mock_server.serving import FineSelector, Server, keep_time, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 for what it cannot play."""
    given = _parser().parse_args(arguments)
    try:
        scripts = _scripts(given)
    except (Misuse, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    file = os.open(given.log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    keep_time(given.cpu)
    selector = FineSelector(spin=given.spin)
    server = Server(scripts, lambda line: os.write(file, line), selector)
    loop = asyncio.SelectorEventLoop(selector)
    try:
        loop.run_until_complete(_until_told(server, given.host, given.port, until_eof=given.until_eof))
    except OSError as error:
        sys.stderr.write(f"cannot listen on {given.host}:{given.port}: {error.strerror}\n")
        return 1
    finally:
        loop.close()
    return 0


async def _until_told(server: Server, host: str, port: int, *, until_eof: bool) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)

    def end_of_input() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            told.set()

    def started(bound: int) -> None:
        sys.stdout.write(f"http://{host}:{bound}/v1\n")
        sys.stdout.flush()

    if until_eof:
        loop.add_reader(sys.stdin.fileno(), end_of_input)
    await serve(server, host, port, started, told)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pytest_qwen.mock_server",
        description="An OpenAI-compatible server that streams made-up answers at known times. "
        "Times are milliseconds unless the name says seconds.",
        epilog=f"Fields: {(ServerScript.__doc__ or '').split('.', 1)[1].strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--model", action="append", help='NAME or NAME={"field": value}; again for more')
    parser.add_argument("--log", help="file for a line of JSON for each answered request")
    parser.add_argument("--cpu", type=int, help="stay on this CPU")
    parser.add_argument("--spin", action="store_true", help="never sleep: more punctual, takes a whole CPU")
    parser.add_argument("--scripts", help=argparse.SUPPRESS)
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    kinds = get_type_hints(ServerScript)
    for field in fields(ServerScript):
        _add(parser, field.name, kinds[field.name], field.default)
    return parser


def _add(parser: argparse.ArgumentParser, name: str, kind: Any, default: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS)
        return
    takes = next(one for one in plain_types(kind) if one is not type(None))
    choices = choices_of(kind) or None
    said = None if default in (None, "") else f"{default}"
    parser.add_argument(flag, type=takes, choices=choices, default=argparse.SUPPRESS, help=said)


def _scripts(given: argparse.Namespace) -> dict[str, ServerScript]:
    """A script for each model's name."""
    if given.scripts:
        return {name: ServerScript(**fields) for name, fields in json.loads(given.scripts).items()}
    names = {field.name for field in fields(ServerScript)}
    common = ServerScript(**{name: value for name, value in vars(given).items() if name in names})
    found = {}
    for one in given.model or ["mock"]:
        name, _, changes = one.partition("=")
        found[name] = common.but(json.loads(changes) if changes else {})
    return found


if __name__ == "__main__":
    sys.exit(main())
