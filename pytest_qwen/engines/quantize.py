"""Weight quantisation of a loaded model through torchao; one row a method."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pytest_qwen.errors import Misuse, Unavailable, closest, explain


def _torchao(name: str, **arguments: Any) -> Callable[[], Any]:
    """A torchao configuration made when it is needed."""
    return lambda: getattr(import_module("torchao.quantization"), name)(**arguments)


METHODS: dict[str, Callable[[], Any]] = {
    "int4": _torchao("Int4WeightOnlyConfig", group_size=128),
    "int8": _torchao("Int8WeightOnlyConfig"),
    "fp8": _torchao("Float8WeightOnlyConfig"),
}


def quantize(model: Any, method: str) -> list[str]:
    """Quantise every linear layer but the head, in place; returns what was applied, in words.

    Raises Misuse for an unknown method and Unavailable when torchao is not installed.
    """
    if method not in METHODS:
        meant = closest(method, METHODS)
        raise Misuse(
            explain(
                f"quantization {method!r} is not known to the transformers engine",
                asked=f"quantization={method!r}",
                slip=f"did you mean {meant!r}?" if meant else None,
                choices=METHODS,
            )
        )
    if find_spec("torchao") is None:
        raise Unavailable(
            explain(
                f"quantization {method!r} needs the package torchao, which is not installed",
                asked=f"quantization={method!r}",
                next_step="pip install torchao",
            )
        )
    torchao = import_module("torchao.quantization")
    torchao.quantize_(model, METHODS[method](), filter_fn=_is_body_linear)
    return [f"{method} weights, linear layers except the head (torchao)"]


def _is_body_linear(module: Any, name: str) -> bool:
    """Linear layers of the body; head and router stay as they are, as published quantised models do it."""
    return type(module).__name__ == "Linear" and "lm_head" not in name and not name.endswith("mlp.gate")
