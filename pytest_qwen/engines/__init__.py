"""The register of engines: a name and where its class lives; nothing is imported until an engine is made."""

from __future__ import annotations

import importlib
from typing import cast

from pytest_qwen.engines.base import Engine
from pytest_qwen.errors import Misuse, NotInstalled, closest, explain

# Set in the environment of a process that hosts an engine and nothing else (see `child`).
HOSTED = "PYTEST_QWEN_ENGINE_CHILD"

# There too: the seconds that such a process has to load before it is ended.
LOAD_TIMEOUT = "PYTEST_QWEN_LOAD_TIMEOUT_S"

# The engine whose run is an optimiser step; every other one generates.
TRAINING = "transformers-training"

# The engine that talks to a server that is there already.
ENDPOINT = "endpoint"

# Where its key is read from unless another variable is named.
DEFAULT_KEY_ENV = "PYTEST_QWEN_API_KEY"

# The model of a test that names none, where a server has just one: that one.
SERVED_MODEL = "served-model"

# "module:Class" rather than the class itself: importing an engine may import torch.
_TARGETS = {
    "fake": "pytest_qwen.engines.fake:FakeEngine",
    "transformers": "pytest_qwen.engines.transformers_:TransformersEngine",
    TRAINING: "pytest_qwen.engines.training:TrainingEngine",
    ENDPOINT: "pytest_qwen.engines.endpoint:EndpointEngine",
    **dict.fromkeys(
        ("vllm", "sglang", "llama-cpp", "transformers-serve", "ollama"),
        "pytest_qwen.engines.server:ServerEngine",
    ),
}


def engine_names() -> tuple[str, ...]:
    """Every name that `create` accepts."""
    return tuple(_TARGETS)


def register(name: str, target: str) -> None:
    """Add an engine of another package: `target` is "module:Class", imported when first used.

    Raises Misuse when the target is malformed or the name already means another class.
    """
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise Misuse(
            explain(f"engine {name!r} cannot be registered", asked=repr(target), slip='want "module:Class"')
        )
    if _TARGETS.setdefault(name, target) != target:
        raise Misuse(
            explain(
                f"engine name {name!r} is taken", asked=target, found=_TARGETS[name], slip="another name?"
            )
        )


def target_of(name: str) -> str:
    """Where the engine lives, as "module:Class". Raises Misuse for an unknown name."""
    if name not in _TARGETS:
        near = closest(name, _TARGETS)
        slip = f"did you mean {near!r}?" if near else None
        raise Misuse(explain("there is no such engine", asked=repr(name), slip=slip, choices=_TARGETS))
    return _TARGETS[name]


def create(name: str) -> Engine:
    """The engine itself, in this process.

    Raises Misuse for an unknown name and NotInstalled when its module cannot be imported.
    """
    return load_target(target_of(name))


def load_target(target: str) -> Engine:
    """Make the engine that lives at "module:Class". Raises NotInstalled when it cannot be imported."""
    module, _, attribute = target.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise NotInstalled(
            explain(
                "the engine cannot be imported",
                asked=target,
                found=str(error),
                next_step="install the extra that it needs, e.g. pip install 'pytest-qwen[transformers]'",
            )
        ) from error
    return cast(Engine, made)
