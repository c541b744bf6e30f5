"""Markers: parsing, messages, help."""

import pytest

import pytest_qwen
from pytest_qwen import markers, parsing
from pytest_qwen.errors import Misuse


def parse(decorator):
    return parsing.parse(decorator.mark)


def misuse(decorator) -> str:
    with pytest.raises(Misuse) as caught:
        parse(decorator)
    return str(caught.value)


def test_every_marker_is_importable_from_the_package_and_is_the_pytest_mark():
    for name in markers.MARKERS:
        assert getattr(pytest_qwen, name).name == name


def test_gpu_takes_names_by_position():
    assert parse(pytest_qwen.gpu("l4", "a10g", count=2)) == markers.Gpu(names=("l4", "a10g"), count=2)


def test_limits_become_floats_and_bounds():
    bound = parsing.bound_of(parse(pytest_qwen.max_ttft(500, stat="p95")))
    assert (bound.metric, bound.limit, bound.stat, bound.direction) == ("ttft_ms", 500.0, "p95", "at most")


def test_system_scope_is_judged_on_the_output_rate_of_the_whole_batch():
    bound = parsing.bound_of(parse(pytest_qwen.min_tokens_per_sec(30, scope="system")))
    assert bound.metric == "output_tokens_per_sec"


@pytest.mark.parametrize(
    ("decorator", "wanted"),
    [
        (pytest_qwen.max_ttft(limt=500), ["unknown argument 'limt'", "did you mean 'limit'?"]),
        (
            pytest_qwen.max_ttft(500, percentile="p95"),
            ["unknown argument 'percentile'", "max_ttft(limit, stat="],
        ),
        (pytest_qwen.max_ttft(), ["argument 'limit' is missing"]),
        (pytest_qwen.max_ttft(500, 600), ["takes at most 1 positional"]),
        (pytest_qwen.max_ttft(500, limit=600), ["'limit' is given twice"]),
        (pytest_qwen.max_ttft("500"), ["limit='500' is not a number above 0", "a number in quotes"]),
        (pytest_qwen.min_tokens_per_sec(-3), ["limit=-3 is not a number above 0"]),
        (pytest_qwen.min_tokens_per_sec(float("nan")), ["is not a number above 0"]),
        (pytest_qwen.min_tokens_per_sec(True), ["is not a number above 0"]),
        (pytest_qwen.min_tokens_per_sec(float("inf")), ["is not a number above 0"]),
        (pytest_qwen.max_ttft(500, stat="p0.95"), ["stat='p0.95' is not 'median' or a percentile"]),
        (pytest_qwen.max_ttft(500, stat=95), ["stat=95 is not 'median'"]),
        (pytest_qwen.min_mbu(60), ["is not a share", "a percentage; write 0.6"]),
        (pytest_qwen.model("x", optimize="maximum"), ["is none of auto, eager", "did you mean 'max'?"]),
        (pytest_qwen.model("x", dtype="bf16"), ["is none of bfloat16", "did you mean 'bfloat16'?"]),
        (pytest_qwen.model(7), ["id=7 is not a non-empty string"]),
        (pytest_qwen.gpu(4090), ["are not all GPU names in quotes"]),
        (pytest_qwen.gpu("l4", count=0), ["count=0 is not a whole number above 0"]),
        (pytest_qwen.max_slowdown(1.1, vs="main"), ["neither 'baseline' nor a mapping"]),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_named_with_what_was_written_and_an_example(decorator, wanted):
    text = misuse(decorator)
    for part in [*wanted, f"@{decorator.name}("]:
        assert part in text


def test_help_has_one_line_a_marker_with_signature_meaning_and_example():
    lines = {line.split("(")[0]: line for line in markers.help_lines()}
    assert lines.keys() == markers.MARKERS.keys() == pytest_qwen.MARK_NAMES
    assert lines["max_ttft"].startswith("max_ttft(limit, stat='median'): ")
    assert 'Example: @max_ttft(500, stat="p95")' in lines["max_ttft"]


def test_pytest_lists_the_markers(pytester):
    result = pytester.runpytest("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.min_tokens_per_sec(limit, stat='median', scope='request'): *"])
