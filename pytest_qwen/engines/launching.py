"""From a load to the command that starts its server, or words for what that server cannot do."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.engines.servers import SERVERS, Server
from pytest_qwen.errors import Misuse, NotInstalled, Unavailable, closest, explain

# Options of `model(options=...)` that say how a server is started; the others are those of its client.
STARTING = ("args", "binary", "speculative", "sleep")
OF_THE_CLIENT = ("api", "body", "dialect", "prompts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A server ready to be started: its command, what is added to the environment, what it serves, where it
    will listen."""

    server: Server
    command: tuple[str, ...]
    environment: Mapping[str, str]
    source: str
    url: str

    @property
    def shown(self) -> str:
        """The command in one line; secrets never stand on it, since they come from the environment."""
        return " ".join(self.command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a test says about the server itself, read from `LoadSpec.options`."""

    args: tuple[str, ...] = ()
    binary: str | None = None
    speculative: str | None = None
    sleep: bool = False
    client: tuple[tuple[str, Any], ...] = ()


# Requests that llama.cpp runs at once unless told otherwise: the default of its own server.
_SLOTS = 4

# Fields that a test may ask of some server, and the value that means "not asked". A dtype is always set.
_ASKABLE: Mapping[str, Any] = {
    "quantization": None,
    "kv_cache": None,
    "revision": None,
    "trust_remote_code": False,
    "tensor_parallel": 1,
    "seed": 0,
    "attention": "sdpa",
    "experts": None,
}


def options_of(spec: LoadSpec) -> Options:
    """The spec's options. Raises Misuse for an unknown one and for one of the wrong kind."""
    given = dict(spec.options)
    known = (*STARTING, *OF_THE_CLIENT)
    for name in given:
        if name not in known:
            near = closest(name, known)
            slip = f"did you mean {near!r}?" if near else _of_an_endpoint(name)
            raise Misuse(
                explain(f"{spec.engine} has no option {name!r}", asked=name, slip=slip, choices=known)
            )
    args = given.get("args", ())
    if isinstance(args, str) or not all(isinstance(one, str) for one in args):
        raise Misuse(
            explain(
                "options: args is not a list of words",
                asked=repr(args),
                slip='one word an argument: {"args": ("--max-num-seqs", "64")}',
            )
        )
    return Options(
        args=tuple(args),
        binary=given.get("binary"),
        speculative=given.get("speculative"),
        sleep=bool(given.get("sleep", False)),
        client=tuple((name, given[name]) for name in OF_THE_CLIENT if name in given),
    )


def _of_an_endpoint(name: str) -> str | None:
    return 'a server that runs already is engine="endpoint"' if name in ("url", "key_env") else None


def launch(spec: LoadSpec, options: Options, source: str, port: int) -> Launch:
    """The server of a load, serving `source` (a folder, a file or a name) under the spec's model id.

    Raises Misuse and Unavailable for what this server cannot do, NotInstalled when it is not there.
    """
    row = SERVERS[spec.engine]
    _check(row, spec, options)
    program = _program(row, options.binary)
    model = () if row.address is None else ((row.model, source) if row.model else (source,))
    address = (row.address[0], "127.0.0.1", row.address[1], str(port)) if row.address else ()
    alias = (row.alias, spec.model) if row.alias else ()
    return Launch(
        server=row,
        command=(*program, *model, *alias, *address, *_arguments(row, spec, options), *options.args),
        environment=_environment(row, spec, options, port),
        source=source,
        url=f"http://127.0.0.1:{port}",
    )


def _arguments(row: Server, spec: LoadSpec, options: Options) -> list[str]:
    """Flags with their values, for all that was asked and the server takes on its command line."""
    found: list[str] = []
    asked = {
        "dtype": spec.dtype,
        "max_model_len": _room(row, spec, options),
        "speculative": options.speculative,
    }
    asked |= {name: getattr(spec, name) for name, unset in _ASKABLE.items() if getattr(spec, name) != unset}
    for name, value in asked.items():
        flag = row.flags.get(name)
        if not flag or value is None:
            continue
        named = _named(row, name, value)
        found += [flag] if value is True else [flag, named]
        if row.name == "llama-cpp" and name == "kv_cache":
            found += ["--cache-type-v", named, "--flash-attn", "on"]  # values in fewer bits need it
    if options.sleep:
        found.append(row.flags["sleep"])
    if row.name == "llama-cpp":
        found += [] if _names_slots(options) else ["--parallel", str(max(spec.max_batch, _SLOTS))]
    found += row.always
    found += row.on_cpu if spec.device == "cpu" else ()
    found += row.dummy or () if spec.weights == "dummy" else ()
    return found


def _room(row: Server, spec: LoadSpec, options: Options) -> int | None:
    """Tokens of room; llama.cpp shares what it is given among its slots."""
    if spec.max_model_len is None or row.name != "llama-cpp":
        return spec.max_model_len
    named = _names_slots(options)
    slots = options.args[options.args.index(named) + 1 :][:1] if named else ()
    count = int(slots[0]) if slots and slots[0].isdecimal() else max(spec.max_batch, _SLOTS)
    return spec.max_model_len * count


def _names_slots(options: Options) -> str | None:
    """The flag with which the test's own arguments say how many requests llama.cpp runs at once."""
    return next((flag for flag in ("--parallel", "-np") if flag in options.args), None)


def _named(row: Server, name: str, value: Any) -> str:
    """The server's own name of a value; ours where there is no other."""
    return row.values.get(name, {}).get(str(value), str(value))


def _environment(row: Server, spec: LoadSpec, options: Options, port: int) -> dict[str, str]:
    facts = {"host": "127.0.0.1", "port": port, "max_model_len": spec.max_model_len or 2048}
    env = {name: text.format(**facts) for name, text in row.environment.items()}
    if row.name == "ollama":
        env["OLLAMA_NUM_PARALLEL"] = str(spec.max_batch)
        if spec.kv_cache:
            env |= {
                "OLLAMA_KV_CACHE_TYPE": _named(row, "kv_cache", spec.kv_cache),
                "OLLAMA_FLASH_ATTENTION": "1",
            }
    if options.sleep:
        env |= row.sleeping
    if spec.device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


def _check(row: Server, spec: LoadSpec, options: Options) -> None:
    """What this server cannot do, in words with what it can."""
    taken = [flag for flag in (row.address or ()) if flag in options.args]
    if taken:
        raise Misuse(
            explain(
                f"the address of a managed {row.name} is chosen here",
                asked=f"args with {', '.join(taken)}",
                next_step="start the server yourself and use --qwen-endpoint=URL, or leave the flag out",
            )
        )
    asked = {name: getattr(spec, name) for name, unset in _ASKABLE.items() if getattr(spec, name) != unset}
    asked |= {"speculative": options.speculative} if options.speculative else {}
    asked |= {"sleep": True} if options.sleep else {}
    for name, value in asked.items():
        if row.name == "llama-cpp" and name == "quantization" and str(value).startswith("gguf:"):
            _check_type_of_file(spec, str(value))
            continue
        if name not in row.flags:
            raise _cannot(row, name, value)
        names = row.values.get(name)
        if names is not None and str(value) not in (*names, *names.values()):
            raise Unavailable(
                explain(
                    f"{row.name} is not known to do {name}={value!r}",
                    asked=f"{name}={value!r}",
                    next_step=f'name it to the server itself: options={{"args": ("{row.flags[name]}", ...)}}',
                    choices=names,
                )
            )
    if spec.weights == "dummy" and row.dummy is None:
        others = [other.name for other in SERVERS.values() if other.dummy is not None]
        raise Unavailable(
            explain(f"{row.name} has no random weights", asked="weights='dummy'", choices=others)
        )


def _cannot(row: Server, name: str, value: Any) -> Unavailable:
    return Unavailable(
        explain(
            f"{row.name} cannot be asked for {name}",
            asked=f"{name}={value!r}",
            next_step=row.hints.get(name) or _others_that_can(name),
            choices=sorted(row.flags),
        )
    )


def _others_that_can(name: str) -> str | None:
    others = [row.name for row in SERVERS.values() if name in row.flags]
    return f"leave it out, or use an engine that can: {', '.join(others)}" if others else "leave it out"


def _program(row: Server, binary: str | None) -> tuple[str, ...]:
    """What to start: the binary that the test names, else the installed module or the program on PATH."""
    if binary is not None:
        found = shutil.which(str(Path(binary).expanduser()))
        if found is None:
            raise NotInstalled(
                explain(
                    f"the {row.name} server cannot be started: there is no such program",
                    asked=f"binary={binary!r}",
                    found="no executable file of that name",
                    next_step=f"{row.install}, or leave binary out",
                )
            )
        return (
            _with_python(row, found) if Path(found).name.startswith("python") else (found, *row.program_args)
        )
    module = (sys.executable, "-m", *row.module) if row.package and find_spec(row.package) else None
    on_path = shutil.which(row.program, path=_search_path())
    program = (on_path, *row.program_args) if on_path else None
    found_one = (program or module) if row.program_first else (module or program)
    if found_one is None:
        raise NotInstalled(
            explain(
                f"the {row.name} server is not installed",
                found=f"no program {row.program!r} on PATH"
                + (f", no package {row.package!r} in this Python ({sys.executable})" if row.package else ""),
                next_step=row.install,
                slip=f'it is in another environment? options={{"binary": "/path/to/bin/{row.program}"}}',
            )
        )
    return found_one


def _with_python(row: Server, python: str) -> tuple[str, ...]:
    """The server as a module of another environment's Python."""
    if not row.module:
        raise Misuse(
            explain(f"{row.name} is no Python program", asked=f"binary={python!r}", choices=(row.program,))
        )
    return (python, "-m", *row.module)


def _search_path() -> str:
    """PATH, and the folder of this Python: programs of a virtual environment that is not activated."""
    return os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))


def _check_type_of_file(spec: LoadSpec, quantization: str) -> None:
    """A GGUF file has the type that it was made with: a mark can only name it. Raises Unavailable."""
    if spec.weights == "dummy" and quantization.lower() != "gguf:f16":
        raise Unavailable(
            explain(
                "random weights for llama.cpp are written in half precision",
                asked=f"quantization={quantization!r} with dummy weights",
                next_step="name a real GGUF file of that type as the model",
                choices=["gguf:F16"],
            )
        )
