"""Options and their ini twins, read once into one frozen value. The only reader of options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from pytest_qwen.engines import DEFAULT_KEY_ENV, ENDPOINT
from pytest_qwen.engines.addresses import address_of
from pytest_qwen.errors import Misuse, closest, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: its flag, its meaning, its default and what makes a valid value of it."""

    flag: str
    help: str
    default: str
    choices: tuple[str, ...] = ()
    metavar: str = "VALUE"
    number: type[int] | type[float] | None = None
    switch: bool = False

    @property
    def dest(self) -> str:
        """The name in the namespace, and of the ini twin: `--qwen-budget` → `qwen_budget`."""
        return self.flag.removeprefix("--").replace("-", "_")


OPTIONS = (
    Option(
        flag="--qwen-gpu",
        help="GPU that this run is for: a name from the catalogue, 'auto' (what is there, the default) or "
        "'cpu'. Also --gpu, unless another plugin owns that name.",
        default="auto",
        metavar="NAME",
    ),
    Option(
        flag="--qwen-engine", help="Engine of tests that name none.", default="transformers", metavar="NAME"
    ),
    Option(
        flag="--qwen-weights",
        help="'dummy' makes random weights of the real shape: nothing is downloaded.",
        default="real",
        choices=("real", "dummy"),
    ),
    Option(flag="--qwen-model", help="Model of tests that name none.", default="", metavar="ID"),
    Option(
        flag="--qwen-endpoint",
        help="A server with an OpenAI-compatible API; tests that name no engine then run on it.",
        default="",
        metavar="URL",
    ),
    Option(
        flag="--qwen-api-key-env",
        help=f"Environment variable that holds the endpoint's API key (default {DEFAULT_KEY_ENV}).",
        default=DEFAULT_KEY_ENV,
        metavar="NAME",
    ),
    Option(
        flag="--qwen-prices",
        help="TOML file with your prices of cards by the hour, in place of the catalogue's.",
        default="",
        metavar="FILE",
    ),
    Option(
        flag="--qwen-plan",
        help="Print fit, ceiling and cost of every selected test; load nothing.",
        default="no",
        switch=True,
    ),
    Option(
        flag="--qwen-budget",
        help="Seconds one test may measure before it ends without a verdict (default 120).",
        default="120",
        metavar="SECONDS",
        number=float,
    ),
    Option(
        flag="--qwen-alpha",
        help="Error rate of either side of a verdict (default 0.01).",
        default="0.01",
        metavar="RATE",
        number=float,
    ),
    Option(
        flag="--qwen-no-verdict",
        help="What a bound without a verdict does to its test; it is never a pass.",
        default="fail",
        choices=("fail", "skip"),
    ),
    Option(flag="--qwen-report", help="Folder for records, CSV and markdown.", default="", metavar="DIR"),
    Option(
        flag="--qwen-replay",
        help="Judge the records of this report folder again with the present bounds; load nothing.",
        default="",
        metavar="DIR",
    ),
    Option(
        flag="--qwen-baseline",
        help="Report folder that max_slowdown(vs='baseline') compares with.",
        default="",
        metavar="DIR",
    ),
    Option(
        flag="--qwen-calibrate",
        help="Repeat every measured test in N fresh processes and print noise, false-fail rates and bounds.",
        default="0",
        metavar="N",
        number=int,
    ),
    Option(
        flag="--qwen-sandbox",
        help="Container engine for generated programs: 'auto' (what is there), 'docker', 'podman' or the "
        "address of its socket.",
        default="auto",
        metavar="ENGINE",
    ),
    Option(
        flag="--qwen-missing-imports",
        help="What a package that the guest image lacks does to an answer: no rating, a failed start, or an "
        "empty stub in its place.",
        default="unrated",
        choices=("unrated", "fail", "stub"),
    ),
    Option(
        flag="--qwen-strict",
        help="Timed checks whose repeats disagree count as failed, not as unmeasured.",
        default="no",
        switch=True,
    ),
    Option(
        flag="--qwen-deep-probe",
        help="Also fuzz every generated server with schemathesis, in its sandbox; told beside the stars.",
        default="no",
        switch=True,
    ),
    Option(
        flag="--qwen-seed",
        help="Seed of the stand-in model and of the order of requests (default: a new one each session).",
        default="0",
        metavar="N",
        number=int,
    ),
    Option(
        flag="--qwen-load-timeout",
        help="Seconds after which a load, with its compilation, counts as hung (default 900).",
        default="900",
        metavar="SECONDS",
        number=float,
    ),
    Option(
        flag="--qwen-run-timeout",
        help="Seconds after which one round counts as hung (default 600).",
        default="600",
        metavar="SECONDS",
        number=float,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The run's options after command line, ini and default were weighed, in that order."""

    gpu: str = "auto"
    engine: str = "transformers"
    weights: str = "real"
    model: str | None = None
    endpoint: str | None = None
    api_key_env: str = DEFAULT_KEY_ENV
    prices: Path | None = None
    plan: bool = False
    budget_s: float = 120.0
    alpha: float = 0.01
    no_verdict: str = "fail"
    report: Path | None = None
    replay: Path | None = None
    baseline: Path | None = None
    calibrate: int = 0
    sandbox: str = "auto"
    missing_imports: Literal["unrated", "fail", "stub"] = "unrated"
    strict: bool = False
    deep_probe: bool = False
    seed: int = 0
    load_timeout_s: float = 900.0
    run_timeout_s: float = 600.0
    given: Mapping[str, str] = field(default_factory=dict)


def add_options(parser: pytest.Parser) -> None:
    """Register every option and its ini twin; `--gpu` itself is added later, if it is free."""
    group = parser.getgroup("qwen", "pytest-qwen: LLM speed, size, cost and quality as tests")
    for option in OPTIONS:
        extra: dict[str, Any] = (
            {"action": "store_const", "const": "yes"}
            if option.switch
            else {"metavar": "|".join(option.choices) if option.choices else option.metavar}
        )
        group.addoption(option.flag, dest=option.dest, default=None, help=option.help, **extra)
        parser.addini(option.dest, f"{option.help} (default of {option.flag})", default=None)


def add_gpu_alias(parser: pytest.Parser) -> bool:
    """Add `--gpu` unless another plugin or conftest owns it; True when it is ours.

    Asked of the parser itself: an option that nobody registered comes back among the unknown arguments.
    """
    probe = "--gpu=probe"
    try:
        _, unknown = parser.parse_known_and_unknown_args([probe])
    except (pytest.UsageError, SystemExit):
        return False
    if probe not in unknown:
        return False
    group = parser.getgroup("qwen")
    group.addoption("--gpu", dest="qwen_gpu", default=None, metavar="NAME", help="Same as --qwen-gpu.")
    return True


def read_settings(config: pytest.Config) -> Settings:
    """The run's settings; Misuse for a value that no option takes."""
    given = {option.dest: text for option in OPTIONS if (text := _text(config, option)) is not None}
    value = {option.dest: _checked(option, given.get(option.dest, option.default)) for option in OPTIONS}
    if not 0 < value["qwen_alpha"] < 0.5:
        raise _wrong("--qwen-alpha", given["qwen_alpha"], "is not between 0 and 0.5", None)
    if value["qwen_calibrate"] and value["qwen_replay"]:
        raise Misuse(
            explain(
                "--qwen-calibrate and --qwen-replay exclude each other",
                asked=f"--qwen-calibrate={given['qwen_calibrate']} --qwen-replay={given['qwen_replay']}",
                found="a replay loads nothing, and calibrating is loading again and again",
                next_step="leave one of them out",
            )
        )
    endpoint = address_of(value["qwen_endpoint"]).url if value["qwen_endpoint"] else None
    key_env = _variable_name(value["qwen_api_key_env"])
    if endpoint and "qwen_api_key_env" in given and key_env not in os.environ:
        raise _no_variable()
    root = config.invocation_params.dir
    return Settings(
        gpu=value["qwen_gpu"],
        engine=ENDPOINT if endpoint and "qwen_engine" not in given else value["qwen_engine"],
        weights=value["qwen_weights"],
        model=value["qwen_model"] or None,
        endpoint=endpoint,
        api_key_env=key_env,
        prices=_path(root, value["qwen_prices"]),
        plan=value["qwen_plan"],
        budget_s=value["qwen_budget"],
        alpha=value["qwen_alpha"],
        no_verdict=value["qwen_no_verdict"],
        report=_path(root, value["qwen_report"]),
        replay=_path(root, value["qwen_replay"]),
        baseline=_path(root, value["qwen_baseline"]),
        calibrate=value["qwen_calibrate"],
        sandbox=value["qwen_sandbox"],
        missing_imports=value["qwen_missing_imports"],
        strict=value["qwen_strict"],
        deep_probe=value["qwen_deep_probe"],
        seed=value["qwen_seed"],
        load_timeout_s=value["qwen_load_timeout"],
        run_timeout_s=value["qwen_run_timeout"],
        given=given,
    )


def _text(config: pytest.Config, option: Option) -> str | None:
    """What the user gave, command line over ini; None when neither."""
    on_line = config.getoption(option.dest, default=None)
    if on_line is not None:
        return str(on_line)
    in_ini = config.getini(option.dest)
    return str(in_ini) if in_ini else None


def _variable_name(text: str) -> str:
    """The name of an environment variable. A key in its place is refused, and not repeated."""
    if text.isidentifier() and text.isascii():
        return text
    raise _no_variable()


def _no_variable() -> Misuse:
    """What stands in place of a variable's name may be the key: it is not repeated."""
    return Misuse(
        explain(
            "--qwen-api-key-env wants the name of an environment variable that is set",
            slip="the key itself in place of the name? keys are read from the environment alone",
            next_step="export MY_KEY=…, then --qwen-api-key-env=MY_KEY",
        )
    )


def _path(root: Path, text: str) -> Path | None:
    return Path(os.path.normpath(root / Path(text).expanduser())) if text else None


_TRUE, _FALSE = ("yes", "true", "1", "on"), ("no", "false", "0", "off")


def _checked(option: Option, text: str) -> Any:
    """The option's text as a value of its type."""
    if option.switch:
        if text.lower() not in _TRUE + _FALSE:
            raise _wrong(option.flag, text, "is neither yes nor no", _TRUE + _FALSE)
        return text.lower() in _TRUE
    if option.choices and text not in option.choices:
        raise _wrong(option.flag, text, "is not a choice", option.choices)
    return _number(option, text, option.number) if option.number else text


def _number(option: Option, text: str, number: Callable[[str], Any]) -> Any:
    try:
        value = number(text)
    except ValueError:
        raise _wrong(option.flag, text, "is not a number", None) from None
    least_is_zero = option.default == "0"
    if not (value >= 0 if least_is_zero else value > 0) or value == float("inf"):
        raise _wrong(option.flag, text, f"is not {'0 or more' if least_is_zero else 'above 0'}", None)
    return value


def _wrong(flag: str, text: str, problem: str, choices: tuple[str, ...] | None) -> Misuse:
    meant = closest(text, choices) if choices else None
    return Misuse(
        explain(
            f"{flag}: {text!r} {problem}",
            asked=f"{flag}={text}",
            slip=f"did you mean {meant!r}?" if meant else None,
            choices=choices,
        )
    )
