"""What a server is given for a model without weights: a folder or file made from a shipped configuration.

The folder has `config.json` and a tokenizer over the whole vocabulary (see `dummy_words`), and needs no
network. Folders are kept between sessions, so that the same load finds the same one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_qwen import data
from pytest_qwen.configurations import qwen2_fields, shape_from_config
from pytest_qwen.engines.dummy_words import BEGIN, CHAT_TEMPLATE, END, vocabulary
from pytest_qwen.errors import ModelUnusable, Unavailable, explain
from pytest_qwen.models import ModelShape

# Raised when what is written changes, so that folders of an older version are not taken.
_VERSION = 1
# More random weights than this are not written to disk.
_MOST_BYTES = 4 << 30

# How Qwen2's tokenizer cuts text before merging (tokenizer.json of Qwen/Qwen2.5)
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def written(model: str, folder: Path | None = None) -> Path:
    """The folder of a model id or of a local folder: configuration and tokenizer, no weights.

    In `folder` when given, else in the cache. Raises ModelUnusable when the configuration is not at hand.
    """
    config = _config_of(model)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, config)
        return folder
    return _kept(model, "folder", config, lambda made: _write(made, config))


def written_with_weights(model: str, seed: int, save: Callable[[Path, int], None]) -> Path:
    """The same folder with random weights in it, which `save(folder, seed)` adds.

    Raises Unavailable for more weights than are written to disk.
    """
    config = _config_of(model)
    _check_size(shape_from_config(config, model))

    def make(made: Path) -> None:
        _write(made, config)
        save(made, seed)
        _write(made, config)  # saving a model writes files of its own beside the weights

    return _kept(model, f"weights-{seed}", config, make)


def written_gguf(model: str, seed: int) -> Path:
    """A llama.cpp file with random weights. Raises as `written_with_weights` and `dummy_gguf.write_gguf`."""
    from pytest_qwen.engines.dummy_gguf import write_gguf

    config = _config_of(model)
    shape = shape_from_config(config, model)
    _check_size(shape)
    made = _kept(model, f"gguf-{seed}", config, lambda it: write_gguf(shape, it / "model.gguf", seed=seed))
    return made / "model.gguf"


def _config_of(model: str) -> dict[str, Any]:
    config = data.find_config(model)
    if config is None:
        raise ModelUnusable(
            explain(
                f"the shape of {model!r} is not known: random weights need a configuration",
                asked="weights='dummy'",
                next_step="a folder with its config.json as the model, or one of the shipped shapes",
                choices=data.known_models(),
            )
        )
    return _as_qwen2(config, model) if config.get("model_type") == "qwen" else config


def _as_qwen2(config: dict[str, Any], model: str) -> dict[str, Any]:
    """The first Qwen generation, which servers want foreign code for, as a Qwen2 of equal shape."""
    return {
        **qwen2_fields(shape_from_config(config, model)),
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
    }


def _check_size(shape: ModelShape) -> None:
    size = 2 * shape.parameters
    if size > _MOST_BYTES:
        raise Unavailable(
            explain(
                "random weights for this server would have to be written to disk, and are too many for that",
                asked=f"model {shape.model_id!r}, weights='dummy'",
                found=f"{size / 1e9:.1f} GB, at most {_MOST_BYTES / 1e9:.1f} GB are written",
                next_step="real weights, or an engine that makes random ones itself: vllm, sglang",
            )
        )


def _kept(model: str, kind: str, config: dict[str, Any], make: Callable[[Path], None]) -> Path:
    """The cached folder of this content, made under another name first: half a folder is never found."""
    content = json.dumps([_VERSION, kind, config], sort_keys=True).encode()
    name = f"{model.rstrip('/').rpartition('/')[2]}-{hashlib.sha256(content).hexdigest()[:12]}"
    folder = cache_home() / "pytest-qwen" / "served" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        make(making)
        making.chmod(0o755)
        try:
            making.rename(folder)
        except OSError:  # another session was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def cache_home() -> Path:
    """Where programs keep what they can make again, as the XDG base directory specification says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _write(folder: Path, config: dict[str, Any]) -> None:
    """Configuration and tokenizer; answers end at the asked length alone, since their words mean nothing."""
    size = int(config["vocab_size"])
    begin, end = _marks(config, size)
    files: dict[str, dict[str, Any]] = {
        "config.json": config,
        "generation_config.json": {"do_sample": False},
        "tokenizer.json": _tokenizer(size, begin, end),
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",  # any of the GPT-2 kind; every library has this one
            "bos_token": BEGIN,
            "eos_token": END,
            "pad_token": END,
            "unk_token": END,
            "model_max_length": int(config.get("max_position_embeddings", 4096)),
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _tokenizer(size: int, begin: int, end: int) -> dict[str, Any]:
    """`tokenizer.json` of the tokenizers library: byte-level BPE, split as Qwen2 does."""
    made = vocabulary(size, begin=begin, end=end)
    bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(index, made.tokens[index]) for index in sorted({begin, end})],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes_only]},
        "post_processor": None,
        "decoder": bytes_only,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(made.tokens)},
            "merges": [list(pair) for pair in made.merges],
        },
    }


def _marks(config: dict[str, Any], size: int) -> tuple[int, int]:
    """The ids that begin and end a text, as the configuration says; the last two where it does not."""
    found = []
    for name, other in (("bos_token_id", size - 2), ("eos_token_id", size - 1)):
        said = config.get(name)
        said = said[0] if isinstance(said, list) and said else said
        found.append(said if isinstance(said, int) and 0 <= said < size else other)
    return found[0], found[1]


def _added(index: int, word: str) -> dict[str, Any]:
    return {
        "id": index,
        "content": word,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
