"""Where the shipped suites and their data are, and which model shapes are among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_qwen.configurations import UncommonAttention, shape_from_config
from pytest_qwen.errors import Misuse, ModelUnusable, explain
from pytest_qwen.models import ModelShape
from pytest_qwen.prices import PriceBook, parse_prices

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """The folder inside an installed package, else the one at the top of the checkout."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def fixtures_dir() -> Path:
    """The folder of the shipped data: model configurations, prompts, published tables."""
    return _shipped("fixtures")


def suites_dir() -> Path:
    """The folder of the shipped test suites."""
    return _shipped("suites")


def config_dir(model: str) -> Path | None:
    """The folder with the model's `config.json`: a local folder, or the shipped one of that model id."""
    local = Path(model).expanduser()
    if (local / "config.json").is_file():
        return local
    shipped = fixtures_dir() / "models" / model.replace("/", "__")
    return shipped if (shipped / "config.json").is_file() else None


def find_config(model: str) -> dict[str, Any] | None:
    """The model's configuration, from a folder, a JSON file or the shipped data; None when none has it.

    Raises ModelUnusable when the file is there and is not a JSON object.
    """
    folder, path = config_dir(model), Path(model).expanduser()
    if folder is not None:
        path = folder / "config.json"
    elif path.suffix != ".json" or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnusable(explain(f"{path} cannot be read", asked=model, found=str(error))) from error
    if not isinstance(config, dict):
        raise ModelUnusable(explain(f"{path} is not a JSON object", asked=model, found=type(config).__name__))
    return config


def find_shape(model: str) -> ModelShape | None:
    """The shape of a model id or of a local model folder; None when its configuration is not at hand, or
    its attention is of a kind whose arithmetic is not known.

    Raises ModelUnusable for an unreadable configuration, Misuse for a wrong one.
    """
    config = find_config(model)
    try:
        return None if config is None else shape_from_config(config, model)
    except UncommonAttention:
        return None


def read_prices(path: Path) -> PriceBook:
    """The prices of a file. Raises Misuse when it cannot be read or is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(explain(f"the price file {path} cannot be read", found=str(error))) from None
    return parse_prices(text, str(path))


def load_prices(path: Path | None = None) -> PriceBook:
    """The shipped prices, under those of a file if one is given. Raises Misuse as `read_prices`."""
    shipped = read_prices(fixtures_dir() / "prices.toml")
    return shipped if path is None else read_prices(path).over(shipped)


def known_models() -> tuple[str, ...]:
    """The ids of the models whose configuration is shipped, in alphabetical order."""
    folders = (path.parent.name for path in (fixtures_dir() / "models").glob("*/config.json"))
    return tuple(sorted(name.replace("__", "/", 1) for name in folders))
