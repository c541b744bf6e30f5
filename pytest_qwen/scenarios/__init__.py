"""The register of scenarios: a name and what makes it; nothing is imported until one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_qwen.errors import Misuse, explain

if TYPE_CHECKING:
    from pytest_qwen.scenarios.base import Scenario


def _lazily(target: str) -> Callable[[], Scenario]:
    """What imports "module:function" and calls it, when it is called."""

    def make() -> Scenario:
        module, _, name = target.partition(":")
        made: Scenario = getattr(importlib.import_module(module), name)()
        return made

    return make


# The first one is the default.
SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "fastapi-vit": _lazily("pytest_qwen.scenarios.fastapi_vit:scenario"),
    "fastapi-crud": _lazily("pytest_qwen.scenarios.fastapi_crud:scenario"),
}
_TARGETS: dict[str, str] = {}


def register(name: str, target: str) -> None:
    """Add a scenario of another package: `target` is "module:function", which gives the `Scenario`.

    Raises Misuse when the target is malformed or the name already means something else.
    """
    module, colon, function = target.partition(":")
    if not (module and colon and function):
        raise Misuse(
            explain(
                f"scenario {name!r}: its target is malformed",
                asked=repr(target),
                next_step="name it like 'my_package.scenario:scenario'",
            )
        )
    if _TARGETS.get(name) == target:
        return
    if name in SCENARIOS:
        raise Misuse(
            explain(
                f"scenario {name!r} is there already", asked=repr(target), next_step="give it another name"
            )
        )
    SCENARIOS[name] = _lazily(target)
    _TARGETS[name] = target
