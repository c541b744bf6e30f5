"""The command `pytest-qwen`: shipped files, a copy of the suites, the catalogue, the shapes, the sandbox."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_qwen import __version__, cli_plan, data
from pytest_qwen.errors import Misuse, QwenError, Unavailable, explain
from pytest_qwen.gpus import CATALOGUE
from pytest_qwen.reports.text import columns

_UNKNOWN = "-"
_EXIT_OK, _EXIT_USAGE = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 when it was asked wrongly or could not be done."""
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], str] = options.command
    try:
        sys.stdout.write(f"{command(options)}\n")
        sys.stdout.flush()
    except QwenError as error:
        sys.stderr.write(f"pytest-qwen: {error}\n")
        return _EXIT_USAGE
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough, as with `pytest-qwen gpus | head -3`
    return _EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pytest-qwen", description=__doc__)
    parser.add_argument("--version", action="version", version=f"pytest-qwen {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    where = commands.add_parser("where", help="print the folder of shipped files")
    where.add_argument("what", choices=("suites", "fixtures"))
    where.set_defaults(command=_where)
    suites = commands.add_parser("suites", help="work with the shipped suites")
    copy = suites.add_subparsers(metavar="ACTION", required=True).add_parser(
        "copy", help="copy them into a new or empty folder, to run and edit"
    )
    copy.add_argument("folder", type=Path, metavar="DIR")
    copy.set_defaults(command=_copy)
    commands.add_parser("gpus", help="print the GPU catalogue").set_defaults(command=_gpus)
    commands.add_parser("models", help="print the shipped model shapes").set_defaults(command=_models)
    cli_plan.add(commands.add_parser("plan", help="say what fits a GPU, how fast and at what cost it can be"))
    _add_sandbox(commands.add_parser("sandbox", help="make and check the sandbox for generated programs"))
    return parser


def _add_sandbox(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    build = actions.add_parser("build", help="make the guest images from the published recipe")
    build.add_argument(
        "--offline",
        action="store_true",
        help="from this Python and its packages, without a base image from a registry",
    )
    build.add_argument("--rebuild", action="store_true", help="also where the images are there")
    build.set_defaults(command=_sandbox_build)
    check = actions.add_parser("check", help="run conformance and attack suites; say what holds here")
    check.set_defaults(command=_sandbox_check)
    sweep = actions.add_parser("sweep", help="remove what killed sessions left behind")
    sweep.set_defaults(command=_sandbox_sweep)
    for action in (build, check, sweep):
        action.add_argument("--engine", default="auto", help="auto, docker, podman or a socket's address")


def _sandbox_build(options: argparse.Namespace) -> str:
    """Make both images. Raises Unavailable where there is no engine or a package cannot be had."""
    from pytest_qwen.sandbox import engines
    from pytest_qwen.sandbox import image as images

    client = engines.connect(options.engine)
    lines = []
    for kind in images.KINDS:
        there = None if options.rebuild else images.present(client, kind)
        name = there or images.build(client, kind, offline=options.offline, say=_say)
        lines.append(f"{name} {'is there already' if there else 'was built'}")
    return "\n".join([*lines, "next step: pytest-qwen sandbox check"])


def _sandbox_check(options: argparse.Namespace) -> str:
    """Try to break out. Raises Unavailable where there is no engine; SandboxBroken when something got out."""
    from pytest_qwen.sandbox import check

    return check.report(options.engine, say=_say)


def _sandbox_sweep(options: argparse.Namespace) -> str:
    from pytest_qwen.sandbox import engines
    from pytest_qwen.sandbox.container import sweep

    return f"{sweep(engines.connect(options.engine))} container(s) of dead sessions removed"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _where(options: argparse.Namespace) -> str:
    return str(data.suites_dir() if options.what == "suites" else data.fixtures_dir())


def _copy(options: argparse.Namespace) -> str:
    """Copy the suites; nothing is left behind when that fails. Raises Misuse and Unavailable."""
    folder: Path = options.folder.expanduser()
    asked = f"pytest-qwen suites copy {options.folder}"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            found = "a folder with files in it" if folder.is_dir() else "a file"
            next_step = "name a folder that is new or empty"
            raise Misuse(explain(f"{folder} is in the way", asked=asked, found=found, next_step=next_step))
        _copy_whole(data.suites_dir(), folder)
    except OSError as error:  # shutil.Error is one
        raise Unavailable(
            explain(
                "the suites cannot be copied",
                asked=asked,
                found=f"{error.strerror or error} ({error.filename or folder})",
                slip="no permission there, no space left, or a part of the path is a file",
            )
        ) from error
    count = len(list(folder.rglob("test_*.py")))
    return f"{count} test files copied to {folder}\nnext step: pytest {folder} --qwen-plan --gpu=h100"


def _copy_whole(source: Path, folder: Path) -> None:
    """Copy into a folder that is new or empty; what a failed copy left is removed. Raises OSError."""
    existed = folder.exists()
    try:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)
    except OSError:
        for left in list(folder.iterdir()) if existed else [folder]:
            shutil.rmtree(left, ignore_errors=True)
        raise


def _gpus(_options: argparse.Namespace) -> str:
    head = ("alias", "name", "GB", "GB/s", "bf16 TFLOP/s", "W", "USD/h")
    rows = [
        (
            row.alias,
            row.name,
            _number(row.memory_gb),
            _number(row.bandwidth_gb_per_sec),
            _number(row.bf16_tflops),
            _number(row.power_w),
            _UNKNOWN if row.price_per_hour_usd is None else f"{row.price_per_hour_usd:.2f}",
        )
        for row in CATALOGUE.values()
    ]
    return columns(head, rows, words=2)


def _models(_options: argparse.Namespace) -> str:
    head = ("model", "parameters (B)", "active (B)", "bf16 weights (GB)")
    shapes = [shape for model in data.known_models() if (shape := data.find_shape(model)) is not None]
    rows = [
        (
            shape.model_id,
            f"{shape.parameters / 1e9:.3f}",
            f"{shape.active_parameters / 1e9:.3f}",
            f"{shape.weights_bytes('bfloat16') / 1e9:.2f}",
        )
        for shape in shapes
    ]
    return columns(head, rows, words=1)


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:g}"
