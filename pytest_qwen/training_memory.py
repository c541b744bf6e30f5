"""What one step of fine-tuning needs: trainable parameters, and the peak of memory line by line."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_qwen.models import DTYPE_BYTES, ModelShape

METHODS = ("lora", "lora-embeddings", "qlora", "full")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
OPTIMIZERS = ("adamw", "adamw-fp32", "adamw8bit", "paged-adamw8bit")

_FP32 = 4
# cuBLAS takes 32 MiB for each thread that multiplies on Hopper (PyTorch's default for its architecture), and
# autograd's backward pass has a thread of its own.
WORKSPACE_BYTES = 2 * (32 << 20)
# The loss in 32 bits for every token and word of the vocabulary: log-probabilities, their gradient, and the
# gradient of the logits that is made from both (torch's log_softmax and nll_loss, backward).
_LOSS_COPIES = 3
# Gate, gated, up and product are kept; while the product's gradient becomes two, three of that size exist.
_MLP_GRADIENTS = 3
# The last norm's backward pass in 32 bits: gradient, its parts through scale and mean, two for the square.
_NORM_GRADIENTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimiser step: `batch` sequences of `tokens` tokens on a model that is fine-tuned by `method`.

    Adapters, gradients and the states of "adamw" are in the model's `dtype`. `targets` are the linear layers
    that get adapters of `rank`. Attention never keeps its scores (sdpa or flash attention). `on_gpu` adds the
    workspaces that matrix products take there.
    """

    shape: ModelShape
    method: str
    tokens: int
    batch: int = 1
    rank: int = 64
    targets: tuple[str, ...] = TARGETS
    checkpointing: bool = True
    optimizer: str = "adamw"
    dtype: str = "bfloat16"
    on_gpu: bool = True

    @property
    def trainable_parameters(self) -> int:
        """What the optimiser changes."""
        if self.method == "full":
            return self.shape.parameters
        return self.shape.layers * self._trained_in_layer + self._trained_head + self._trained_embedding

    @property
    def weights_bytes(self) -> float:
        """The model itself: frozen under adapters, in 4 bits under Q-LoRA."""
        return self.shape.weights_bytes(self.dtype, "nf4" if self.method == "qlora" else None)

    @property
    def added_bytes(self) -> float:
        """Adapters, and the copies of embedding and head that are trained beside the frozen ones."""
        return 0 if self.method == "full" else self.trainable_parameters * self._bytes

    @property
    def state_bytes(self) -> float:
        """Two moments a parameter; in 8 bits with a 32-bit scale for each 256, paged ones in other memory."""
        each = {
            "adamw": 2 * self._bytes,
            "adamw-fp32": 2 * _FP32,
            "adamw8bit": 2 * (1 + _FP32 / 256),
            "paged-adamw8bit": 0,
        }
        return self.trainable_parameters * each[self.optimizer]

    @property
    def _bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]

    @property
    def _work(self) -> int:
        """Tokens of the whole batch."""
        return self.tokens * self.batch

    @property
    def _linears(self) -> dict[str, int]:
        """Each linear layer's inputs and outputs, summed: an adapter has `rank` times as many parameters."""
        shape = self.shape
        query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        outputs = {"q_proj": query, "k_proj": key, "v_proj": key}
        found = {name: shape.hidden + width for name, width in outputs.items()}
        found |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), shape.hidden + shape.intermediate)
        return {**found, "o_proj": query + shape.hidden}

    @property
    def _trained_in_layer(self) -> int:
        if self.method == "full":
            embeddings = self._trained_head + self._trained_embedding
            return (self.shape.parameters - embeddings - self.shape.hidden) // self.shape.layers
        return self.rank * sum(self._linears[name] for name in self.targets)

    @property
    def _trained_down(self) -> int:
        """Of the last projection of a layer, whose gradient is there first."""
        if self.method == "full":
            return self.shape.hidden * self.shape.intermediate
        return self.rank * self._linears["down_proj"] if "down_proj" in self.targets else 0

    @property
    def _trained_head(self) -> int:
        return self.shape.embedding_parameters if self.method in ("full", "lora-embeddings") else 0

    @property
    def _trained_embedding(self) -> int:
        """Beside the head's; one that is tied to it is counted there."""
        tied = self.method == "full" and self.shape.tied_embeddings
        return 0 if tied else self._trained_head

    @property
    def kept_by_layer_bytes(self) -> float:
        """What one layer keeps for its backward pass, computed in one go.

        Norms: input in 32 bits, scale, output, and under full training what the weight multiplied. Attention:
        query, key, value, output, and the scores' normaliser in 32 bits. MLP: gate, gated, up, and the
        product where the last projection is trained. Adapters: what lies between their two matrices.
        """
        shape, size = self.shape, self._bytes
        attention = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
        width = 2 * shape.hidden * (2 if self.method == "full" else 1) + attention + 3 * shape.intermediate
        exact = 2 * (shape.hidden + 1) + shape.heads
        between = 0 if self.method == "full" else self.rank * len(self.targets)
        return self._work * (size * (width + between) + _FP32 * exact) + self._product_bytes

    @property
    def _product_bytes(self) -> float:
        kept = self.method == "full" or "down_proj" in self.targets
        return self._work * self._bytes * self.shape.intermediate if kept else 0

    @property
    def _stream_bytes(self) -> float:
        """One tensor of the residual stream: what checkpointing keeps of a layer."""
        return self._work * self._bytes * self.shape.hidden

    @property
    def _in_work_bytes(self) -> float:
        """What the backward pass of one layer takes beyond what is kept, at its peak in the MLP.

        With checkpointing that includes the layer's own activations, computed again; in 32 bits the first
        norm's input is the checkpoint itself.
        """
        wide = self._work * self._bytes * self.shape.intermediate
        beyond = _MLP_GRADIENTS * wide - self._product_bytes + self._stream_bytes
        if self.method == "qlora":  # a weight is taken out of its 4 bits while it multiplies
            unpacked = self.shape.hidden * self.shape.intermediate * self._bytes
            beyond = max(beyond, 2 * wide - self._product_bytes + self._stream_bytes + unpacked)
        if not self.checkpointing:
            return beyond
        shared = self._stream_bytes if self._bytes == _FP32 else 0
        return beyond + self.kept_by_layer_bytes - shared

    def _kept_bytes(self, layers: int) -> float:
        """What `layers` layers keep, with the rotary tables that all share."""
        each = self._stream_bytes if self.checkpointing else self.kept_by_layer_bytes
        return layers * each + 2 * self.tokens * self.shape.head_dim * self._bytes

    def _phases(self) -> list[TrainingPlan]:
        """The moments at which memory can be highest: (gradients, kept, logits, in work), each summed up."""
        shape, size = self.shape, self._bytes
        words = self._work * shape.vocab
        exact = self._work * _FP32 * shape.hidden
        final = exact + (self._stream_bytes if self._trained_head else 0)
        everything = self._kept_bytes(shape.layers)
        head, layer = self._trained_head * size, self._trained_in_layer * size
        above = head + (shape.layers - 1) * layer  # gradients when the first layer's turn comes
        down, again = self._trained_down * size, 2 * head if self._twice_trained else 0
        gradients = self.trainable_parameters * size
        return [
            self._plan("loss", 0, everything + final, _LOSS_COPIES * _FP32 * words, 0),
            self._plan("head", head, everything + final, size * words, self._stream_bytes),
            self._plan("norm", head, everything + final, 0, _NORM_GRADIENTS * exact),
            self._plan("last layer", head + down, everything, 0, self._in_work_bytes),
            self._plan("first layer", above + down, self._kept_bytes(1), 0, self._in_work_bytes),
            self._plan("embedding", gradients, 0, 0, self._stream_bytes + again),
        ]

    @property
    def _twice_trained(self) -> bool:
        """A tied embedding gets a second gradient beside the head's; their sum is a third tensor."""
        return self.method == "full" and self.shape.tied_embeddings

    def _plan(self, phase: str, gradients: float, kept: float, logits: float, in_work: float) -> TrainingPlan:
        what = "checkpoints" if self.checkpointing else "activations"
        lines = [
            (f"weights ({'nf4' if self.method == 'qlora' else self.dtype})", self.weights_bytes),
            ("adapters" if self.method != "lora-embeddings" else "adapters and embeddings", self.added_bytes),
            (f"optimiser states ({self.optimizer})", self.state_bytes),
            ("gradients", gradients),
            (f"{what} of {self.shape.layers} layers, {self.batch} x {self.tokens} tokens", kept),
            (f"logits and loss, vocabulary of {self.shape.vocab}", logits),
            ("a layer in work", in_work),
            ("workspaces (assumed)", WORKSPACE_BYTES if self.on_gpu else 0),
        ]
        return TrainingPlan(phase=phase, lines=tuple((label, size) for label, size in lines if size))

    def plan(self) -> TrainingPlan:
        """The memory of the step at its highest moment.

        Sums what the library's own code keeps for the backward pass, tensor by tensor; checked against the
        allocator's events (see docs/finetuning.md). The driver's context is no part of it.
        """
        return max(self._phases(), key=lambda plan: plan.total_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """The memory of a step at its peak: (label, bytes) line by line, and in which phase that is."""

    phase: str
    lines: tuple[tuple[str, float], ...]

    @property
    def total_bytes(self) -> float:
        """The peak of what is allocated."""
        return sum(size for _, size in self.lines)

    def explain(self, title: str, available_bytes: float | None = None) -> str:
        """The plan as text, one line an item, under a title."""
        rows = [*self.lines, ("needed", self.total_bytes)]
        rows += [] if available_bytes is None else [("available", available_bytes)]
        where = f"  peak: {self.phase}"
        return "\n".join([title, *(f"  {size / 1e9:.2f} GB: {label}" for label, size in rows), where])
