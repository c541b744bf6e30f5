"""What each quantisation needs: every row is either possible, or refused with what is lacking."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_qwen.engines import precisions
from pytest_qwen.engines.base import LoadSpec
from pytest_qwen.engines.precisions import METHODS, check, check_kv_cache, method_of
from pytest_qwen.errors import Misuse, QwenError, Unavailable

HOPPER, ADA, AMPERE, TURING = (9, 0), (8, 9), (8, 0), (7, 5)


def spec(quantization: str, **changes) -> LoadSpec:
    made = LoadSpec(engine="transformers", model="a/model", quantization=quantization, weights="dummy")
    return replace(made, **changes)


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "find_spec", lambda _name: object())


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize(
    ("quantization", "capability", "changes"),
    [
        ("int8", None, {}),
        ("int8", TURING, {"dtype": "float16"}),
        ("int4", AMPERE, {}),
        ("fp8", ADA, {}),
        ("nf4", TURING, {"dtype": "float16"}),
        ("fp8", HOPPER, {"weights": "real"}),
    ],
)
def test_what_a_machine_can_do(quantization, capability, changes) -> None:
    assert check(spec(quantization, **changes), capability=capability) is METHODS[quantization]


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize("name", ["awq", "gptq", "compressed-tensors"])
def test_a_checkpoint_is_taken_as_what_it_is(name) -> None:
    asked = spec(name, weights="real")
    assert check(asked, capability=HOPPER, checkpoint=name) is METHODS[name]
    with pytest.raises(Misuse, match=r"is not a checkpoint in .*\n.*\n.*full precision"):
        check(asked, capability=HOPPER)
    with pytest.raises(Unavailable, match="come from a checkpoint"):
        check(replace(asked, weights="dummy"), capability=HOPPER)


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize(
    ("quantization", "capability", "changes", "error", "says"),
    [
        ("int5", HOPPER, {}, Misuse, "did you mean 'int"),
        ("int4:Q4", HOPPER, {}, Misuse, "is not known"),
        ("gguf", HOPPER, {}, Misuse, "after a colon"),
        ("gguf:Q4_K_M", HOPPER, {}, Unavailable, "runs in llama.cpp"),
        ("int4", None, {}, Unavailable, "need a GPU"),
        ("int4", TURING, {}, Unavailable, "compute capability 7.5"),
        ("fp8", AMPERE, {}, Unavailable, "needs 8.9 or later"),
        ("int4", HOPPER, {"dtype": "float16"}, Unavailable, "do not go with float16"),
        ("nf4", None, {}, Unavailable, "int8"),
    ],
)
def test_what_cannot_be_done_is_said(quantization, capability, changes, error, says) -> None:
    with pytest.raises(error, match=says):
        check(spec(quantization, **changes), capability=capability)


def test_a_quantised_checkpoint_is_not_quantised_again() -> None:
    with pytest.raises(Misuse, match="quantised already") as caught:
        check(spec("int8", weights="real"), capability=HOPPER, checkpoint="awq")
    assert "quantization='awq'" in str(caught.value)


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.packages])
def test_a_missing_package_is_named(name, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "find_spec", lambda _name: None)
    row = METHODS[name]
    checkpoint = name if row.made == "checkpoint" else None
    with pytest.raises(Unavailable, match="pip install") as caught:
        check(spec(name, weights="real"), capability=HOPPER, checkpoint=checkpoint)
    assert row.packages[0] in str(caught.value)


def test_rows_agree_with_the_arithmetic() -> None:
    """Every method with a fixed size has it where the ceilings are computed."""
    from pytest_qwen.models import WEIGHT_BYTES

    sized = {name for name in METHODS if name not in ("gguf", "compressed-tensors")}
    assert sized == set(WEIGHT_BYTES)


def test_a_word_for_the_kv_cache_is_checked() -> None:
    for kind in precisions.KV_CACHES:
        check_kv_cache(kind)
    with pytest.raises(Misuse, match="did you mean 'fp8'"):
        check_kv_cache("fp88")


def test_method_of_reads_the_type_of_a_file() -> None:
    assert method_of("gguf:Q4_K_M").made == "other engine"
    assert importlib.util.find_spec("pytest_qwen.engines.quantize")
    with pytest.raises(QwenError):
        method_of("")


def test_the_page_has_every_method_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "quantization.md").read_text("utf-8")
    for row in METHODS.values():
        packages = ", ".join(row.packages) or "–"
        least = ".".join(map(str, row.capability))
        cpu = "yes" if row.cpu else "no"
        assert f"| `{row.name}` | {row.what} | {row.made} | {packages} | {least} | {cpu} |" in page
    for kind in precisions.KV_CACHES:
        assert f"| `{kind}` |" in page
