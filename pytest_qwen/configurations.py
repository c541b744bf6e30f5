"""From a model's `config.json` to its shape, and what a shape cannot do: bad input in one message each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_qwen.errors import Misuse, explain
from pytest_qwen.models import ModelShape

# Families whose attention differs from "no bias, no norm"; any other family says so in its configuration.
_BIASED_QKV = {"qwen", "qwen2", "qwen2_moe"}
_NORMED_QK = {"qwen3", "qwen3_moe"}


class UncommonAttention(Misuse):
    """A configuration whose arithmetic is not known here; the model itself may be fine."""


def shape_from_config(config: Mapping[str, Any], model_id: str) -> ModelShape:
    """The shape that a Hugging Face `config.json` describes: Llama, Mistral, Mixtral, Qwen 1 to 3 and alike.

    Raises Misuse when fields are missing, a value cannot be, fields contradict each other, or attention is of
    a kind that this shape cannot express (UncommonAttention).
    """
    family = str(config.get("model_type", ""))
    if "linear_num_value_heads" in config or "kv_lora_rank" in config:
        raise UncommonAttention(
            explain(
                f"the shape of {model_id!r} cannot be computed: its attention is not the common kind",
                found=f"model_type {family!r} with linear or latent attention",
                next_step="measure it; fit and ceiling are not known for it",
            )
        )
    given = _Given(config, model_id)
    given.check_needed(
        ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    )
    heads, hidden = given.number("num_attention_heads"), given.number("hidden_size")
    layers, intermediate = given.number("num_hidden_layers"), given.number("intermediate_size")
    experts = given.number("num_experts", "num_local_experts", default=0)
    if experts:
        given.check_needed(("num_experts_per_tok",))
    shape = ModelShape(
        model_id=model_id,
        architecture=str((config.get("architectures") or [family])[0]),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=given.number("num_key_value_heads", default=heads),
        head_dim=given.number("head_dim", "kv_channels", default=hidden // heads),
        # the first Qwen generation counts gate and up projection together
        intermediate=intermediate // 2 if family == "qwen" else intermediate,
        vocab=given.number("vocab_size"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=family in _BIASED_QKV or bool(config.get("attention_bias")),
        output_bias=family not in _BIASED_QKV and bool(config.get("attention_bias")),
        qk_norm=family in _NORMED_QK,
        experts=experts,
        experts_per_token=given.number("num_experts_per_tok") if experts else 0,
        moe_intermediate=given.number("moe_intermediate_size", default=intermediate) if experts else 0,
        shared_intermediate=given.number("shared_expert_intermediate_size", default=0) if experts else 0,
        dense_layers=_dense_layers(given, layers) if experts else 0,
        max_positions=_positions(given),
    )
    _check_agrees(shape, given)
    return shape


@dataclass(frozen=True, slots=True)
class _Given:
    """A configuration's fields, read with one message for each way in which they can be wrong."""

    config: Mapping[str, Any]
    model_id: str

    def check_needed(self, names: tuple[str, ...]) -> None:
        """Raises Misuse that names every field of these that is not there."""
        missing = [name for name in names if self.config.get(name) is None]
        if missing:
            raise Misuse(
                explain(
                    f"the configuration of {self.model_id!r} does not say {', '.join(missing)}",
                    found=f"fields: {', '.join(sorted(map(str, self.config))) or 'none'}",
                    slip="a configuration of another kind of model, or of a wrapper around one",
                )
            )

    def number(self, *names: str, default: int = 1) -> int:
        """The first of these fields that is there, else the default.

        Raises Misuse for one that is no positive integer; 0 is allowed where it is the default ("none").
        """
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            least = 0 if default == 0 else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise self.wrong(f"{name} = {value!r} is not a whole number of {least} or more")
            return value
        return default

    def wrong(self, problem: str) -> Misuse:
        """A contradiction, or a value that no model has."""
        return Misuse(
            explain(
                f"the configuration of {self.model_id!r} cannot be right: {problem}",
                next_step="compare it with the config.json that the model was published with",
            )
        )


def _check_agrees(shape: ModelShape, given: _Given) -> None:
    """Raises Misuse for fields that contradict each other."""
    if shape.heads % shape.kv_heads:
        raise given.wrong(f"{shape.heads} attention heads cannot share {shape.kv_heads} KV heads evenly")
    explicit = given.config.get("head_dim") or given.config.get("kv_channels")
    if not explicit and shape.hidden % shape.heads:
        raise given.wrong(
            f"hidden_size {shape.hidden} is no multiple of {shape.heads} heads, and no head_dim is given"
        )
    if shape.experts_per_token > shape.experts:
        raise given.wrong(f"each token takes {shape.experts_per_token} of {shape.experts} experts")


def _positions(given: _Given) -> int | None:
    """The longest context: the trained positions, or what the configuration's rope scaling stretches them to.

    Configurations that were published with scaling give the stretched length already; those to which it was
    added (as Qwen2.5's page on long texts shows) give factor and original length, or the factor alone.
    """
    positions = given.number("max_position_embeddings", "seq_length", default=0)
    scaling = given.config.get("rope_scaling") or given.config.get("rope_parameters")
    if not positions or not isinstance(scaling, Mapping):
        return positions or None
    factor, trained = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    kind = scaling.get("rope_type") or scaling.get("type")
    if not isinstance(factor, (int, float)) or isinstance(factor, bool):
        return positions
    if isinstance(trained, int):
        return max(positions, round(trained * factor))
    return round(positions * factor) if kind in {"linear", "dynamic"} else positions


def check_context(shape: ModelShape, tokens: int, asked: str) -> None:
    """Raises Misuse when a context is longer than the model has positions; `asked` says who wants it."""
    if shape.max_positions is not None and tokens > shape.max_positions:
        raise Misuse(
            explain(
                f"a context of {tokens} tokens is beyond the {shape.max_positions} of {shape.model_id}",
                asked=asked,
                next_step="a shorter context, or a configuration with rope scaling",
            )
        )


def check_split(shape: ModelShape, count: int) -> None:
    """Raises Misuse when a number of cards cannot share the attention heads evenly.

    Tensor parallelism gives each card whole heads. With more cards than KV heads engines keep copies of
    them, which the memory plan does not count.
    """
    if shape.heads % count or shape.kv_heads % count:
        able = [n for n in range(1, shape.kv_heads + 1) if not (shape.heads % n or shape.kv_heads % n)]
        raise Misuse(
            explain(
                f"{count} cards cannot share {shape.heads} heads and {shape.kv_heads} KV heads evenly",
                asked=f"{shape.model_id} on {count} cards",
                choices=map(str, able),
            )
        )


def _dense_layers(given: _Given, layers: int) -> int:
    """Layers of a mixture-of-experts model with a plain MLP: listed ones, and those off the sparse step."""
    listed = set(given.config.get("mlp_only_layers") or ())
    step = given.number("decoder_sparse_step", default=1)
    return sum(1 for layer in range(layers) if layer in listed or (layer + 1) % step)


def qwen2_fields(shape: ModelShape) -> dict[str, Any]:
    """What a Qwen2 configuration says of a model of equal shape, such as one of the first Qwen generation."""
    return {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.max_positions or 8192,
        "tie_word_embeddings": shape.tied_embeddings,
    }
