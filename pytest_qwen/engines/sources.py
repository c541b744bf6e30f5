"""Where a model's configuration, tokenizer and weights come from, and one error for all that can be wrong."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, Qwen2Config

from pytest_qwen import data
from pytest_qwen.configurations import qwen2_fields, shape_from_config
from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.engines.faults import translate
from pytest_qwen.engines.tokenizing import ByteTokenizer, HubTokenizer, Tokenizing
from pytest_qwen.errors import DoesNotFit, EngineFault, ModelUnusable, closest, explain


def source_of(spec: LoadSpec) -> Path | str:
    """Where config and weights come from: a local folder, a shipped shape (dummy weights), or the hub."""
    local = Path(spec.model).expanduser()
    if local.is_dir():
        return local
    shipped = data.config_dir(spec.model)
    if spec.weights == "dummy" and shipped is not None:
        return shipped
    if spec.model.startswith(("/", "./", "../", "~")):
        raise ModelUnusable(
            explain(
                f"model {spec.model!r} cannot be found",
                asked=f"the folder {local}",
                found="no such folder",
                slip="a path relative to another working directory",
            )
        )
    return spec.model


def config_of(spec: LoadSpec, source: Path | str) -> tuple[Any, list[str]]:
    """The model's configuration object of transformers, and a word where it stands in for another.

    The first Qwen generation is not in transformers 5; its layers (biased query, key and value, gated MLP,
    RMS norms) are those of Qwen2 with as many key heads as query heads. Only for dummy weights.
    """
    if spec.weights == "dummy" and isinstance(source, Path):
        said = json.loads((source / "config.json").read_text(encoding="utf-8"))
        if said.get("model_type") == "qwen":
            config = Qwen2Config(**qwen2_fields(shape_from_config(said, spec.model)))
            return config, ["Qwen as a Qwen2 of equal shape"]
    with loading(spec, source):
        config = AutoConfig.from_pretrained(
            source, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
        return config, []


def tokenizer_of(spec: LoadSpec, source: Path | str) -> Tokenizing:
    """The model's tokenizer; bytes for dummy weights of a shape that ships without one."""
    if isinstance(source, Path) and not any(source.glob("*token*")) and spec.weights == "dummy":
        return ByteTokenizer()
    tokenizer = AutoTokenizer.from_pretrained(
        source, revision=spec.revision, trust_remote_code=spec.trust_remote_code
    )
    try:
        eos = GenerationConfig.from_pretrained(source, revision=spec.revision).eos_token_id
    except OSError:
        eos = None
    ids = eos if isinstance(eos, list) else [eos] if eos is not None else []
    if not ids and tokenizer.eos_token_id is not None:
        ids = [tokenizer.eos_token_id]
    return HubTokenizer(tokenizer, ids)


@contextlib.contextmanager
def loading(spec: LoadSpec, source: Path | str) -> Iterator[None]:
    """Turn the libraries' many load errors into one that says what to do."""
    try:
        yield
    except Exception as error:
        meant = translate(error)
        if isinstance(meant, DoesNotFit) or (isinstance(meant, EngineFault) and meant.kind == "device"):
            raise  # no fault of the files
        name, text = type(error).__name__, " ".join(str(error).split())[:300]
        if name == "SafetensorError":
            raise ModelUnusable(
                explain(
                    f"the weights of {spec.model!r} are corrupt",
                    asked=f"safetensors files of {source}",
                    found=f"{name}: {text}",
                    slip="an interrupted download, or a pointer file of a large-file store",
                    next_step="fetch the files again",
                )
            ) from error
        if isinstance(error, OSError | ValueError | KeyError | RuntimeError | ImportError):
            raise _not_loadable(spec, source, name, text) from error
        raise


def _not_loadable(spec: LoadSpec, source: Path | str, name: str, text: str) -> ModelUnusable:
    meant = closest(spec.model, data.known_models())
    slip = f"did you mean {meant!r}?" if meant and meant != spec.model else None
    if slip is None and isinstance(source, Path) and not any(source.glob("*.safetensors")):
        slip = "the folder has no *.safetensors file; other weight formats are refused"
    return ModelUnusable(
        explain(
            f"model {spec.model!r} cannot be loaded",
            asked=f"{spec.weights} weights from {source}, revision {spec.revision or 'default'}",
            found=f"{name}: {text}",
            slip=slip,
            next_step="--qwen-weights=dummy needs no download for the shapes listed below",
            choices=data.known_models(),
        )
    )
