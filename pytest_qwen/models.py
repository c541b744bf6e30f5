"""Model shapes: parameters, bytes and FLOPs of a decoder-only transformer, from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_qwen.errors import Misuse, closest, explain

DTYPE_BYTES: dict[str, int] = {"bfloat16": 2, "float16": 2, "float32": 4}

# Bytes of one quantised weight with its share of scales and zero points. Per-channel scales of int8 and fp8
# are one value in thousands of weights and left out.
WEIGHT_BYTES: dict[str, float] = {
    "int8": 1.0,
    "fp8": 1.0,
    # 4 bits, a 16-bit scale and a 16-bit zero point for each group of 128 weights
    "int4": 0.5 + 4 / 128,
    # 4 bits, a 16-bit scale and a 4-bit zero point for each group of 128 weights (GPTQ and AWQ checkpoints)
    "gptq": 0.5 + 2.5 / 128,
    "awq": 0.5 + 2.5 / 128,
    # 4 bits, an 8-bit scale for each 64 weights, a 32-bit scale for each 256 of those (Dettmers et al. 2023,
    # "QLoRA", double quantisation)
    "nf4": 0.5 + 1 / 64 + 4 / (64 * 256),
}

KV_BYTES: dict[str, float] = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1, "int8": 1, "int4": 0.5}
_SCALED_KV = {"int8", "int4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The numbers of a configuration that decide size and speed.

    `experts` 0 is a dense model; otherwise `dense_layers` of the layers have a plain MLP of `intermediate`,
    the others `experts` of `moe_intermediate` each (with a router) and, when `shared_intermediate` is not 0,
    a shared expert. `qkv_bias`, `output_bias` and `qk_norm` say which small parameters attention has.
    """

    model_id: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    experts: int = 0
    experts_per_token: int = 0
    moe_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0
    max_positions: int | None = None

    @property
    def moe_layers(self) -> int:
        """Layers with experts; 0 for a dense model."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def embedding_parameters(self) -> int:
        """The input embedding; an untied head has as many again."""
        return self.vocab * self.hidden

    @property
    def expert_parameters(self) -> int:
        """One expert of one layer: gate, up and down projection."""
        return 3 * self.hidden * self.moe_intermediate

    @property
    def _attention_linear(self) -> int:
        """Query, key, value and output projections of one layer, biases aside."""
        return 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim

    @property
    def _common_linear(self) -> int:
        """Weights of every linear layer that each token passes: attention, plain MLPs, shared experts."""
        plain = 3 * self.hidden * self.intermediate * (self.layers - self.moe_layers)
        shared = 3 * self.hidden * self.shared_intermediate * self.moe_layers
        return self.layers * self._attention_linear + plain + shared

    @property
    def _small(self) -> int:
        """Norms, biases and routers: what is not quantised and no embedding."""
        per_layer = 2 * self.hidden
        per_layer += (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        per_layer += self.hidden if self.output_bias else 0
        per_layer += 2 * self.head_dim if self.qk_norm else 0
        router = self.hidden * self.experts + (self.hidden if self.shared_intermediate else 0)
        return self.layers * per_layer + self.hidden + self.moe_layers * router

    @property
    def _head_and_small(self) -> int:
        """What one step reads at full precision: the head, norms, biases and routers."""
        return self.embedding_parameters + self._small

    @property
    def parameters(self) -> int:
        """Every parameter, experts and embeddings included."""
        untied = 0 if self.tied_embeddings else self.embedding_parameters
        experts = self.moe_layers * self.experts * self.expert_parameters
        return self._common_linear + self._head_and_small + untied + experts

    @property
    def active_parameters(self) -> int:
        """Parameters that one token uses: those of the chosen experts only; embeddings included."""
        idle = self.moe_layers * (self.experts - self.experts_per_token) * self.expert_parameters
        return self.parameters - idle

    def weights_bytes(self, dtype: str = "bfloat16", quantization: str | None = None) -> float:
        """Bytes of the weights in memory. Quantisation covers linear layers except head and routers.

        Raises Misuse for an unknown dtype or quantisation.
        """
        experts = self.moe_layers * self.experts * self.expert_parameters
        quantized = self._common_linear + experts
        rest = self.parameters - quantized
        return quantized * weight_bytes(dtype, quantization) + rest * _dtype_bytes(dtype)

    def padding_weights(self, multiple: int) -> int:
        """Weights that are added where each linear layer's inputs are filled up to a multiple of `multiple`.

        Of layers without experts; a kernel in tiles works on whole tiles.
        """
        if multiple == 1 or self.experts:
            return 0
        attended = self.heads * self.head_dim
        from_hidden = (self.heads + 2 * self.kv_heads) * self.head_dim + 2 * self.intermediate
        return self.layers * (
            from_hidden * (-self.hidden % multiple)
            + self.hidden * (-attended % multiple)
            + self.hidden * (-self.intermediate % multiple)
        )

    def read_bytes_per_step(
        self,
        dtype: str = "bfloat16",
        quantization: str | None = None,
        batch: int = 1,
        distinct_experts: float | None = None,
    ) -> float:
        """Bytes of weights that one decode step must read, whatever the kernels.

        The input embedding is left out (a step reads one row of it a sequence); a tied head is read once.
        `distinct_experts` are the experts that the batch uses in a layer; None takes `expected_experts`.
        Raises Misuse for an unknown dtype or quantisation.
        """
        distinct = self.expected_experts(batch) if distinct_experts is None else distinct_experts
        quantized = self._common_linear + self.moe_layers * distinct * self.expert_parameters
        return quantized * weight_bytes(dtype, quantization) + self._head_and_small * _dtype_bytes(dtype)

    def expected_experts(self, batch: int) -> float:
        """Distinct experts of a layer that `batch` tokens use when each takes k of E uniformly at random.

        An expert is missed by all with probability (1 - k/E)^batch, so E (1 - (1 - k/E)^batch) are used: the
        occupancy expectation. Exactly k for one token; trained routers are less even and use fewer.
        """
        if not self.experts:
            return 0.0
        return self.experts * (1 - (1 - self.experts_per_token / self.experts) ** batch)

    def kv_bytes_per_token(self, kv_dtype: str = "bfloat16") -> float:
        """Bytes of KV cache of one token: 2 (K and V) x layers x KV heads x head dim x bytes of a value.

        Raises Misuse for an unknown KV type.
        """
        if kv_dtype not in KV_BYTES:
            raise _unknown("KV cache type", kv_dtype, KV_BYTES)
        return 2 * self.layers * self.kv_heads * self.head_dim * KV_BYTES[kv_dtype]

    def kv_scale_bytes_per_token(self, kv_dtype: str) -> float:
        """Bytes of the scales that integer codes need beside them: 16 bits for each key and value vector."""
        return 2 * self.layers * self.kv_heads * 2 if kv_dtype in _SCALED_KV else 0

    def flops_per_token(self, context_tokens: int) -> float:
        """FLOPs of decoding one token: 2 for each active weight that is multiplied (no embedding row), plus
        attention over the context, 4 x layers x heads x head dim x context (scores and weighted sum)."""
        return 2 * (self._body_active + self.embedding_parameters) + self._attention_flops(context_tokens)

    def prefill_flops(self, prompt_tokens: int, batch: int = 1) -> float:
        """FLOPs of the prompts of a batch: causal attention sees half the prompt on average, and the head
        is needed for the last token of each sequence only."""
        body = prompt_tokens * (2 * self._body_active + self._attention_flops((prompt_tokens + 1) / 2))
        return batch * (body + 2 * self.embedding_parameters)

    @property
    def _body_active(self) -> int:
        """Weights between embedding and head that multiply each token."""
        chosen = self.moe_layers * self.experts_per_token * self.expert_parameters
        return self._common_linear + chosen + self.moe_layers * self.hidden * self.experts

    def _attention_flops(self, context_tokens: float) -> float:
        return 4 * self.layers * self.heads * self.head_dim * context_tokens


def _dtype_bytes(dtype: str) -> int:
    if dtype not in DTYPE_BYTES:
        raise _unknown("dtype", dtype, DTYPE_BYTES)
    return DTYPE_BYTES[dtype]


def weight_bytes(dtype: str, quantization: str | None) -> float:
    """Bytes of one weight of a linear layer, its share of scales included; Misuse for an unknown name."""
    if quantization is None:
        return _dtype_bytes(dtype)
    if quantization not in WEIGHT_BYTES:
        raise _unknown("quantization", quantization, WEIGHT_BYTES)
    return WEIGHT_BYTES[quantization]


def _unknown(what: str, name: str, choices: Mapping[str, object]) -> Misuse:
    meant = closest(name, choices)
    return Misuse(
        explain(
            f"the size of {what} {name!r} is not known",
            asked=name,
            slip=f"did you mean {meant!r}?" if meant else None,
            choices=choices,
        )
    )
