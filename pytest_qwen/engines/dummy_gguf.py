"""A llama.cpp model file with random weights of any dense shape, for servers that have none of their own."""

from __future__ import annotations

from pathlib import Path

from pytest_qwen.engines.dummy_words import CHAT_TEMPLATE, vocabulary
from pytest_qwen.errors import NotInstalled, Unavailable, explain
from pytest_qwen.models import ModelShape

# the usual scale of fresh weights; norms are ones
_SCALE = 0.02
_BEGIN, _END = 0, 1


def write_gguf(shape: ModelShape, path: Path, *, seed: int = 0) -> None:
    """Write the file, its matrices in half precision.

    The weights do not matter to speed; `seed` makes them the same everywhere. Raises NotInstalled without
    the gguf package, Unavailable for a mixture of experts.
    """
    if shape.experts:
        raise Unavailable(
            explain(
                "random weights for llama.cpp are written for dense models only",
                asked=f"model {shape.model_id!r}, weights='dummy'",
                found=f"a mixture of {shape.experts} experts",
                next_step="a real GGUF file, or an engine with random weights of its own: vllm, sglang",
            )
        )
    try:
        import gguf
        import numpy as np
    except ImportError as error:
        raise NotInstalled(
            explain(
                "random weights for llama.cpp cannot be written",
                found=str(error),
                next_step="pip install 'pytest-qwen[llama-cpp]'",
            )
        ) from error
    writer = gguf.GGUFWriter(path, _family(shape))
    _describe(writer, shape)
    _add_words(writer, shape, gguf)
    draw = np.random.default_rng(seed)
    for name, size in _tensors(shape):
        if len(size) == 1:
            values = np.zeros(size) if name.endswith("bias") else np.ones(size)
            writer.add_tensor(name, values.astype(np.float32))
        else:
            drawn = draw.standard_normal(size, dtype=np.float32) * np.float32(_SCALE)
            writer.add_tensor(name, drawn.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _family(shape: ModelShape) -> str:
    """llama.cpp's name of the architecture with these small parameters."""
    if shape.qk_norm:
        return "qwen3"
    return "qwen2" if shape.qkv_bias else "llama"


def _describe(writer: object, shape: ModelShape) -> None:
    """The numbers of the shape, under GGUF's names."""
    for method, value in (
        ("add_name", shape.model_id),
        ("add_file_type", 1),  # mostly half precision
        ("add_block_count", shape.layers),
        ("add_context_length", shape.max_positions or 4096),
        ("add_embedding_length", shape.hidden),
        ("add_feed_forward_length", shape.intermediate),
        ("add_head_count", shape.heads),
        ("add_head_count_kv", shape.kv_heads),
        ("add_key_length", shape.head_dim),
        ("add_value_length", shape.head_dim),
        ("add_rope_dimension_count", shape.head_dim),
        ("add_layer_norm_rms_eps", 1e-6),
        ("add_vocab_size", shape.vocab),
    ):
        getattr(writer, method)(value)


def _add_words(writer: object, shape: ModelShape, gguf: object) -> None:
    """The vocabulary of `dummy_words`, its first two tokens the marks."""
    made = vocabulary(shape.vocab, begin=_BEGIN, end=_END)
    kinds = gguf.TokenType  # type: ignore[attr-defined]
    types = [kinds.NORMAL] * shape.vocab
    types[_BEGIN] = types[_END] = kinds.CONTROL
    for method, value in (
        ("add_tokenizer_model", "gpt2"),
        ("add_tokenizer_pre", "qwen2"),
        ("add_token_list", made.tokens),
        ("add_token_types", types),
        ("add_token_merges", [" ".join(pair) for pair in made.merges]),
        ("add_bos_token_id", _BEGIN),
        ("add_eos_token_id", _END),
        ("add_add_bos_token", False),
        ("add_chat_template", CHAT_TEMPLATE),
    ):
        getattr(writer, method)(value)


def _tensors(shape: ModelShape) -> list[tuple[str, tuple[int, ...]]]:
    """Name and size (rows, columns) of every tensor."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    found: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (shape.vocab, shape.hidden))]
    for layer in range(shape.layers):
        parts: list[tuple[str, tuple[int, ...]]] = [
            ("attn_norm.weight", (shape.hidden,)),
            ("attn_q.weight", (queries, shape.hidden)),
            ("attn_k.weight", (keys, shape.hidden)),
            ("attn_v.weight", (keys, shape.hidden)),
            ("attn_output.weight", (shape.hidden, queries)),
            ("ffn_norm.weight", (shape.hidden,)),
            ("ffn_gate.weight", (shape.intermediate, shape.hidden)),
            ("ffn_up.weight", (shape.intermediate, shape.hidden)),
            ("ffn_down.weight", (shape.hidden, shape.intermediate)),
        ]
        if shape.qkv_bias:
            parts += [("attn_q.bias", (queries,)), ("attn_k.bias", (keys,)), ("attn_v.bias", (keys,))]
        if shape.qk_norm:
            parts += [("attn_q_norm.weight", (shape.head_dim,)), ("attn_k_norm.weight", (shape.head_dim,))]
        found += [(f"blk.{layer}.{name}", size) for name, size in parts]
    found.append(("output_norm.weight", (shape.hidden,)))
    if not shape.tied_embeddings:
        found.append(("output.weight", (shape.vocab, shape.hidden)))
    return found
