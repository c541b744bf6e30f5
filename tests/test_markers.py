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
        (pytest_qwen.min_stars(6), ["overall=6 is not a whole number of stars from 0 to 5"]),
        (pytest_qwen.min_stars(-1), ["overall=-1 is not a whole number of stars"]),
        (pytest_qwen.min_stars(3.5), ["overall=3.5 is not a whole number of stars"]),
        (pytest_qwen.min_stars(True), ["overall=True is not a whole number of stars"]),
        (pytest_qwen.min_stars("4"), ["overall='4' is not a whole number", "a number in quotes"]),
        (pytest_qwen.min_stars(documentation="3"), ["documentation='3' is not", "a number in quotes"]),
        (pytest_qwen.min_stars(4, "run"), ["takes at most 1 positional"]),
        (pytest_qwen.min_stars(4, overall=4), ["'overall' is given twice"]),
        (pytest_qwen.min_stars(4, profile="runn"), ["is none of run, read", "did you mean 'run'?"]),
        (pytest_qwen.min_stars(4, profile=None), ["profile=None is none of run, read"]),
        (
            pytest_qwen.min_stars(documentaton=3),
            ["unknown argument 'documentaton'", "did you mean 'documentation'?", "use it like @min_stars(4"],
        ),
        (pytest_qwen.min_stars(stars=4), ["unknown argument 'stars'", "min_stars(overall=None, profile="]),
        (pytest_qwen.min_pass_at_k(), ["argument 'limit' is missing"]),
        (pytest_qwen.min_pass_at_k(0), ["limit=0 is not a share above 0 and up to 1"]),
        (pytest_qwen.min_pass_at_k(50), ["limit=50 is not a share", "a percentage; write 0.5"]),
        (pytest_qwen.min_pass_at_k("0.5"), ["limit='0.5' is not a share", "a number in quotes"]),
        (pytest_qwen.min_pass_at_k(0.5, k=0), ["k=0 is not a whole number above 0"]),
        (pytest_qwen.min_pass_at_k(0.5, k=1.5), ["k=1.5 is not a whole number above 0"]),
        (pytest_qwen.min_pass_at_k(0.5, k="3"), ["k='3' is not a whole number", "a number in quotes"]),
        (pytest_qwen.min_pass_at_k(0.5, stars=6), ["stars=6 is not a whole number of stars"]),
        (pytest_qwen.min_pass_at_k(0.5, star=4), ["unknown argument 'star'", "did you mean 'stars'?"]),
        (pytest_qwen.min_pass_at_k(0.5, n=4), ["unknown argument 'n'", "min_pass_at_k(limit, k=1, stars=4)"]),
        (pytest_qwen.answer(3), ["path=3 is not a non-empty string"]),
        (pytest_qwen.answer(""), ["path='' is not a non-empty string"]),
        (pytest_qwen.answer("a.md", "crud"), ["takes at most 1 positional"]),
        (
            pytest_qwen.answer("a.md", senario="fastapi-crud"),
            ["unknown argument 'senario'", "did you mean 'scenario'?"],
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_named_with_what_was_written_and_an_example(decorator, wanted):
    text = misuse(decorator)
    for part in [*wanted, f"@{decorator.name}("]:
        assert part in text


def test_stars_are_a_bound_for_each_rating_that_is_named():
    found = parsing.rated_bounds(parse(pytest_qwen.min_stars(4, profile="read", documentation=0)))
    assert [(b.metric, b.limit, b.unit, b.judged) for b in found] == [
        ("read overall", 4.0, "stars", "rated"),
        ("read documentation", 0.0, "stars", "rated"),
    ]
    assert str(found[0]) == "min_stars: read overall ≥ 4 stars"


def test_stars_without_a_number_are_misuse():
    for decorator in (pytest_qwen.min_stars(), pytest_qwen.min_stars(profile="read")):
        with pytest.raises(Misuse) as caught:
            parsing.rated_bounds(parse(decorator))
        assert "marker 'min_stars': no least number of stars is given" in str(caught.value)
        assert "@min_stars(4, documentation=3)" in str(caught.value)


def test_pass_at_k_is_one_bound_with_k_in_its_metric():
    (bound,) = parsing.rated_bounds(parse(pytest_qwen.min_pass_at_k(0.5, k=3)))
    assert (bound.metric, bound.limit, bound.judged) == ("pass@3", 0.5, "rated")
    assert str(bound) == "min_pass_at_k: pass@3 ≥ 0.5 ratio"


def test_a_recorded_answer_keeps_what_is_not_given_unset():
    assert parse(pytest_qwen.answer("a.md")) == markers.RecordedAnswer(path="a.md", scenario=None)
    assert parse(pytest_qwen.answer(scenario="fastapi-crud")).path is None


def test_help_has_one_line_a_marker_with_signature_meaning_and_example():
    lines = {line.split("(")[0]: line for line in markers.help_lines()}
    assert lines.keys() == markers.MARKERS.keys() == pytest_qwen.MARK_NAMES
    assert lines["max_ttft"].startswith("max_ttft(limit, stat='median'): ")
    assert 'Example: @max_ttft(500, stat="p95")' in lines["max_ttft"]


def test_pytest_lists_the_markers(pytester):
    result = pytester.runpytest("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.min_tokens_per_sec(limit, stat='median', scope='request'): *"])
