"""From marks to one request: which mark wins, what clashes, whose mark it is."""

import pytest

import pytest_qwen as q
from pytest_qwen.ask import PRESETS, read_marks
from pytest_qwen.errors import Misuse

FUNCTION, CLASS, MODULE = "function", "class", "module"


def read(*pairs, uses_fixtures=True):
    return read_marks([(node, decorator.mark) for node, decorator in pairs], uses_fixtures=uses_fixtures)


def limits(request):
    return {(b.marker, b.stat): b.limit for b in request.bounds}


def test_the_closest_bound_wins():
    request = read((FUNCTION, q.max_ttft(200)), (CLASS, q.max_ttft(500)))
    assert limits(request) == {("max_ttft", "median"): 200.0}


def test_bounds_of_different_statistics_stand_side_by_side():
    request = read((FUNCTION, q.max_ttft(200)), (FUNCTION, q.max_ttft(500, stat="p95")))
    assert limits(request) == {("max_ttft", "median"): 200.0, ("max_ttft", "p95"): 500.0}


def test_two_different_bounds_of_one_kind_in_one_place_conflict():
    with pytest.raises(Misuse, match="two bounds of the same kind conflict"):
        read((FUNCTION, q.max_ttft(200)), (FUNCTION, q.max_ttft(500)))


def test_the_same_bound_twice_is_one_bound():
    assert len(read((FUNCTION, q.max_ttft(200)), (FUNCTION, q.max_ttft(200))).bounds) == 1


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        (
            [(FUNCTION, q.max_ttft(2000)), (FUNCTION, q.max_e2e_latency(4))],
            "max_ttft.*max_e2e_latency.*conflict",
        ),
        ([(FUNCTION, q.min_tokens_per_sec(30)), (FUNCTION, q.max_tpot(0.033))], "conflict"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(pairs, wanted):
    with pytest.raises(Misuse, match=wanted):
        read(*pairs)


def test_model_arguments_left_unset_come_from_the_outer_mark():
    request = read(
        (FUNCTION, q.model(optimize="max")), (MODULE, q.model("a/b", optimize="eager", dtype="float16"))
    )
    assert (request.model.id, request.model.optimize, request.model.dtype) == ("a/b", "max", "float16")


def test_a_preset_sets_bounds_and_a_bound_marker_overrides_its_part():
    request = read((FUNCTION, q.max_ttft(100)), (FUNCTION, q.sla("interactive")))
    assert limits(request) == {("max_ttft", "median"): 100.0, ("min_tokens_per_sec", "median"): 30.0}


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(Misuse) as caught:
        read((FUNCTION, q.sla("interactiv")))
    assert "did you mean 'interactive'?" in str(caught.value)
    assert all(name in str(caught.value) for name in PRESETS)


def test_an_unknown_gpu_is_misuse():
    with pytest.raises(Misuse, match="h1000"):
        read((FUNCTION, q.gpu("h1000")))


def test_a_bare_gpu_mark_of_another_project_is_left_alone():
    assert not read((FUNCTION, q.gpu), uses_fixtures=False).asked


def test_a_bare_gpu_mark_on_a_test_with_our_fixtures_wants_any_gpu():
    request = read((FUNCTION, q.gpu), uses_fixtures=True)
    assert request.asked
    assert request.gpu is not None
    assert request.gpu.names == ()


def test_prompt_and_prompt_tokens_exclude_each_other():
    with pytest.raises(Misuse, match="exclude each other"):
        read((FUNCTION, q.workload(prompt="x")), (CLASS, q.workload(prompt_tokens=4)))


def test_a_slowdown_keeps_the_other_sides_arguments():
    request = read((FUNCTION, q.max_slowdown(1.1, vs={"optimize": "eager"})))
    assert request.versus[request.bounds[0].vs] == {"optimize": "eager"}
