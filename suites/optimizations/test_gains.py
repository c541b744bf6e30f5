"""Each optimisation against its own baseline, interleaved A B B A in one session: what it really gains."""

import pytest

from pytest_qwen import gpu, model, workload

MODELS = ("Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen/Qwen3-30B-A3B")
STEPS = [("eager", "static"), ("static", "compile"), ("compile", "max")]

pytestmark = workload(prompt_tokens=64, output_tokens=64)


def report(record_property, comparison, label: str) -> None:
    """The gain with its interval, for JUnit and the record."""
    record_property(
        f"qwen.gain.{label}",
        f"{comparison.speedup:.3f}x [{1 / comparison.high:.3f}, {1 / comparison.low:.3f}], n={comparison.n}",
    )


@pytest.mark.parametrize("name", [pytest.param(name, marks=model(name)) for name in MODELS])
@pytest.mark.parametrize(("before", "after"), STEPS, ids=[f"{b}-to-{a}" for b, a in STEPS])
@gpu
@model(max_model_len=256)
def test_profile(compare, record_property, name, before, after):
    """Each profile is no slower than the one below it."""
    gain = compare(vs={"optimize": before}, optimize=after)
    report(record_property, gain, f"{before}-to-{after}")
    assert gain.low < 1, f"{after} is slower than {before}: {gain.slowdown:.3f} times the time per token"


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2", "flash_attention_3"])
@gpu
@model("Qwen/Qwen2.5-Coder-7B-Instruct", optimize="eager", max_model_len=256)
def test_attention(compare, record_property, attention):
    """Attention kernels against sdpa at a short context, where they cannot matter much: reported only."""
    gain = compare(vs={"attention": "sdpa"}, attention=attention)
    report(record_property, gain, f"sdpa-to-{attention}")
    assert gain.n > 0


@gpu("cpu")
@model("embedded/qwen2-tiny", max_model_len=64)
@workload(prompt_tokens=16, output_tokens=16)
def test_embedded_static_cache(compare, record_property):
    """Without a GPU: the same comparison on the embedded model; a static cache must not halve the rate."""
    gain = compare(vs={"optimize": "eager"}, optimize="static")
    report(record_property, gain, "eager-to-static")
    assert gain.slowdown < 2
