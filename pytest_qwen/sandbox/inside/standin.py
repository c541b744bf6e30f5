"""Makes the model that stands in for a published one, and says what it answers: runs inside a container.

Reads one JSON line {"seed", "repo_ids"} from standard input and writes one JSON line. All comes from the
seed: the weights of a small and of a slow vision transformer, the pictures, and of these the two pairs to ask
about. The classifiers are scaled and centred on what the pictures give, so that each pair holds one picture
of either label, neither in doubt nor beyond it.
"""

import base64
import hashlib
import io
import json
import math
import os
import platform
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

# One thread: sums in one order, and what a prediction takes is what one processor takes.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from safetensors.numpy import save
from transformers import AutoImageProcessor, AutoModelForImageClassification

LABELS = ("normal", "nsfw")
CANDIDATES = 24
# What is no longer in doubt.
LEAST_SCORE = 0.65
# What the log-odds of the nearer quarter of the pictures become: a score of 0.77.
QUARTER_LOGIT = 1.2
# How far apart those of the first pair become with the slow model: scores of 0.77 and 0.86.
PAIR_LOGITS = 3.0
PAIRS = (("good.0", "good.1"), ("hidden.0", "hidden.1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A vision transformer at 224 pixels. Time grows with the square of the patches, weights do not."""

    layers: int
    patch: int
    width: int = 32
    inner: int = 64
    heads: int = 2
    image: int = 224

    @property
    def places(self) -> int:
        """The patches of a picture and the token that the class is read from."""
        return (self.image // self.patch) ** 2 + 1


FAST = Shape(layers=2, patch=32)
SLOW = Shape(layers=4, patch=4, heads=4)

Weights = dict[str, Any]


def weights_of(shape: Shape, seed: int) -> Weights:
    """Random weights that let a picture through to the class token; the classifier is left for later."""
    draw = np.random.default_rng([seed, shape.layers, shape.patch])
    width, inner, pixels = shape.width, shape.inner, 3 * shape.patch**2

    def normal(*size: int, spread: float) -> Any:
        return (draw.standard_normal(size) * spread).astype(np.float32)

    def linear(name: str, out: int, into: int) -> Weights:
        spread = 1 / math.sqrt(into)
        return {f"{name}.weight": normal(out, into, spread=spread), f"{name}.bias": normal(out, spread=0.05)}

    def norm(name: str) -> Weights:
        return {f"{name}.weight": np.ones(width, np.float32), f"{name}.bias": np.zeros(width, np.float32)}

    patches = "vit.embeddings.patch_embeddings.projection"
    weights = {
        "vit.embeddings.cls_token": normal(1, 1, width, spread=0.2),
        "vit.embeddings.position_embeddings": normal(1, shape.places, width, spread=0.2),
        # Neighbouring pixels are alike, so their sum grows faster than noise's would.
        f"{patches}.weight": normal(width, 3, shape.patch, shape.patch, spread=2 / math.sqrt(pixels)),
        f"{patches}.bias": normal(width, spread=0.05),
        **norm("vit.layernorm"),
    }
    for number in range(shape.layers):
        layer = f"vit.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            weights |= linear(f"{layer}.attention.attention.{part}", width, width)
        weights |= linear(f"{layer}.attention.output.dense", width, width)
        weights |= linear(f"{layer}.intermediate.dense", inner, width)
        weights |= linear(f"{layer}.output.dense", width, inner)
        weights |= norm(f"{layer}.layernorm_before") | norm(f"{layer}.layernorm_after")
    direction = normal(width, spread=1 / math.sqrt(width))
    return weights | {
        "classifier.weight": np.stack([-direction / 2, direction / 2]),
        "classifier.bias": np.zeros(2, np.float32),
    }


def snapshot_of(shape: Shape, weights: Weights) -> dict[str, bytes]:
    """The three files of a model repository, as transformers 4 and 5 read them."""
    config = {
        "architectures": ["ViTForImageClassification"],
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": shape.width,
        "id2label": {str(index): label for index, label in enumerate(LABELS)},
        "image_size": shape.image,
        "initializer_range": 0.02,
        "intermediate_size": shape.inner,
        "label2id": {label: index for index, label in enumerate(LABELS)},
        "layer_norm_eps": 1e-12,
        "model_type": "vit",
        "num_attention_heads": shape.heads,
        "num_channels": 3,
        "num_hidden_layers": shape.layers,
        "patch_size": shape.patch,
        "qkv_bias": True,
        "torch_dtype": "float32",
    }
    processor = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": shape.image, "width": shape.image},
    }
    return {
        "config.json": json.dumps(config, indent=1).encode(),
        "preprocessor_config.json": json.dumps(processor, indent=1).encode(),
        "model.safetensors": save(weights, metadata={"format": "pt"}),
    }


class Classifier:
    """What `pipeline("image-classification")` does with the files, in the same steps."""

    def __init__(self, shape: Shape, weights: Weights) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in snapshot_of(shape, weights).items():
                (Path(folder) / name).write_bytes(content)
            self._processor = AutoImageProcessor.from_pretrained(folder)
            self._model, info = AutoModelForImageClassification.from_pretrained(
                folder, output_loading_info=True
            )
        wrong = {key: sorted(map(str, keys)) for key, keys in info.items() if keys}
        if wrong:
            raise SystemExit(f"standin: the weights do not fit the model: {wrong}")
        self._model.eval()

    def odds(self, image: Image.Image) -> float:
        """The log-odds of the second label."""
        with torch.inference_mode():
            normal, other = (
                self._model(**self._processor(images=image, return_tensors="pt")).logits[0].double()
            )
        return float(other - normal)


# ---- pictures


def picture(draw: np.random.Generator) -> Image.Image:
    """Soft colours, shapes and grain, 64 to 320 pixels a side."""
    width, height = (int(side) for side in draw.integers(64, 321, 2))
    down, right = np.mgrid[0:height, 0:width].astype(np.float32)
    canvas = _gradient(draw, right / width, down / height)
    for _ in range(int(draw.integers(2, 7))):
        canvas = _blob(draw, canvas, right / width, down / height)
    canvas = canvas + _clouds(draw, width, height) * float(draw.uniform(10, 60))
    canvas = canvas + draw.standard_normal((height, width, 1), np.float32) * float(draw.uniform(0, 3))
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def png(image: Image.Image) -> bytes:
    """The same pixels as a file."""
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def _gradient(draw: np.random.Generator, right: Any, down: Any) -> Any:
    angle = draw.uniform(0, 2 * math.pi)
    along = (np.cos(angle) * (right - 0.5) + np.sin(angle) * (down - 0.5) + 0.7) / 1.4
    start, end = draw.uniform(0, 255, (2, 3)).astype(np.float32)
    return start + (end - start) * along[..., None]


def _blob(draw: np.random.Generator, canvas: Any, right: Any, down: Any) -> Any:
    x, y, *colour = draw.uniform(0, 1, 5)
    wide, high = draw.uniform(0.05, 0.35, 2)
    cover = np.exp(-(((right - x) / wide) ** 2) - ((down - y) / high) ** 2)[..., None]
    return canvas + (np.asarray(colour, np.float32) * 255 - canvas) * cover


def _clouds(draw: np.random.Generator, width: int, height: int) -> Any:
    coarse = draw.uniform(0, 255, (int(draw.integers(3, 9)), int(draw.integers(3, 9)))).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return (np.asarray(smooth, np.float32) / 255 - 0.5)[..., None]


# ---- the choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """What turns the log-odds of random weights into those of the finished model."""

    middle: float
    scale: float

    def weights(self, weights: Weights) -> Weights:
        """The finished model: only its classifier is another."""
        bias = np.array([self.middle, -self.middle], np.float32) * np.float32(self.scale / 2)
        directions = weights["classifier.weight"] * np.float32(self.scale)
        return weights | {"classifier.weight": directions, "classifier.bias": bias}

    def answer(self, odds: float) -> dict[str, Any]:
        """Label and score of the finished model; six digits, as further ones depend on the processor."""
        finished = self.scale * (odds - self.middle)
        return {"label": LABELS[int(finished > 0)], "score": round(1 / (1 + math.exp(-abs(finished))), 6)}


def centre_of(middle: float, distance: float, logit: float) -> Centre:
    """Four digits: processors that differ in the last ones still make the same weights."""
    return Centre(middle=float(f"{middle:.4g}"), scale=float(f"{logit / distance:.4g}"))


def chosen(answers: Sequence[dict[str, Any]], draw: np.random.Generator) -> dict[str, int]:
    """Which candidate is which picture: of those out of doubt two of a label, their scores furthest apart."""
    scores: list[float] = [answer["score"] for answer in answers]

    def apart(indices: Sequence[int]) -> float:
        ordered = sorted([*(scores[index] for index in indices), 1.0])
        return min(higher - lower for lower, higher in pairwise(ordered))

    sure = [index for index, score in enumerate(scores) if score >= LEAST_SCORE]
    twos = [combinations([i for i in sure if answers[i]["label"] == label], 2) for label in LABELS]
    best = max((one + other for one, other in product(*twos)), key=apart)
    names: dict[str, int] = {}
    for pair, indices in zip(PAIRS, (best[::2], best[1::2]), strict=True):
        names |= zip(pair, draw.permutation(indices).tolist(), strict=True)
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A finished model: its repository's files and what it answers to pictures, by name."""

    files: dict[str, bytes]
    oracle: dict[str, dict[str, Any]]


def fast_model(seed: int, candidates: Sequence[Image.Image]) -> tuple[Model, dict[str, Image.Image]]:
    """The small model and the four pictures, which are chosen by what it makes of all candidates."""
    weights = weights_of(FAST, seed)
    raw = Classifier(FAST, weights)
    odds = [raw.odds(one) for one in candidates]
    low, middle, high = np.quantile(odds, (0.25, 0.5, 0.75))
    centre = centre_of(middle, min(middle - low, high - middle), QUARTER_LOGIT)
    answers = [centre.answer(one) for one in odds]
    names = chosen(answers, np.random.default_rng([seed, len(candidates)]))
    oracle = {name: answers[index] for name, index in names.items()}
    model = Model(files=snapshot_of(FAST, centre.weights(weights)), oracle=oracle)
    return model, {name: candidates[index] for name, index in names.items()}


def slow_model(seed: int, images: dict[str, Image.Image]) -> Model:
    """The slow model, centred between the pictures of the first pair, which are all that it is asked.

    Not in the very middle: their scores differ.
    """
    weights = weights_of(SLOW, seed)
    raw = Classifier(SLOW, weights)
    odds = {name: raw.odds(images[name]) for name in PAIRS[0]}
    first, second = odds.values()
    centre = centre_of(0.6 * first + 0.4 * second, abs(second - first), PAIR_LOGITS)
    oracle = {name: centre.answer(value) for name, value in odds.items()}
    return Model(files=snapshot_of(SLOW, centre.weights(weights)), oracle=oracle)


# ---- the answer


def hub_of(files: dict[str, bytes], repo_ids: Sequence[str]) -> bytes:
    """A tar of the hub's cache with the files under every repository id; what repeats is a hard link."""
    revision = hashlib.sha1(b"".join(files.values()), usedforsecurity=False).hexdigest()
    written, first = io.BytesIO(), dict[bytes, str]()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, content in _laid_out(files, repo_ids, revision):
            entry = tarfile.TarInfo(path)
            entry.mode = 0o644
            if content in first:
                entry.type, entry.linkname = tarfile.LNKTYPE, first[content]
            else:
                entry.size = len(content)
                first[content] = path
            tar.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return written.getvalue()


def _laid_out(files: dict[str, bytes], repo_ids: Sequence[str], revision: str) -> Iterator[tuple[str, bytes]]:
    for repo in repo_ids:
        root = f"hub/models--{repo.replace('/', '--')}"
        yield f"{root}/refs/main", revision.encode()
        for name, content in files.items():
            yield f"{root}/snapshots/{revision}/{name}", content


def standin(seed: int, repo_ids: Sequence[str]) -> dict[str, Any]:
    """What is printed."""
    draw = np.random.default_rng(seed)
    fast, images = fast_model(seed, [picture(draw) for _ in range(CANDIDATES)])
    slow = slow_model(seed, images)
    return {
        "hub": _text(hub_of(fast.files, repo_ids)),
        "slow_hub": _text(hub_of(slow.files, repo_ids)),
        "oracle": fast.oracle,
        "slow_oracle": slow.oracle,
        "labels": LABELS,
        "images": {name: _text(png(image)) for name, image in images.items()},
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
    }


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def main() -> None:
    """One line in, one line out."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    asked = json.loads(sys.stdin.readline())
    json.dump(standin(int(asked["seed"]), asked["repo_ids"]), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
