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
    assert read((FUNCTION, q.gpu), uses_fixtures=False).gpu is None


def test_a_bare_gpu_mark_on_a_test_with_our_fixtures_wants_any_gpu():
    request = read((FUNCTION, q.gpu), uses_fixtures=True)
    assert request.gpu is not None
    assert request.gpu.names == ()


def test_prompt_and_prompt_tokens_exclude_each_other():
    with pytest.raises(Misuse, match="exclude each other"):
        read((FUNCTION, q.workload(prompt="x")), (CLASS, q.workload(prompt_tokens=4)))


def test_a_slowdown_keeps_the_other_sides_arguments():
    request = read((FUNCTION, q.max_slowdown(1.1, vs={"optimize": "eager"})))
    assert request.versus[request.bounds[0].vs] == {"optimize": "eager"}


@pytest.mark.parametrize("bound", [q.max_slowdown, q.max_accuracy_drop])
def test_the_other_side_takes_what_a_model_mark_takes(bound):
    with pytest.raises(Misuse, match="did you mean 'quantization'"):
        read((FUNCTION, bound(0.1, vs={"quantisation": "int8"})))


# ---- stars


def stars(request):
    return {bound.metric: bound.limit for bound in request.rated}


def test_the_closest_stars_win_rating_by_rating():
    request = read(
        (FUNCTION, q.min_stars(5, documentation=2)),
        (CLASS, q.min_stars(3, production=1)),
        (MODULE, q.min_stars(4, documentation=4, practices=3)),
    )
    assert stars(request) == {
        "run overall": 5.0,
        "run documentation": 2.0,
        "run production": 1.0,
        "run practices": 3.0,
    }
    assert not request.bounds
    assert request.all_bounds == request.rated


def test_both_profiles_stand_side_by_side():
    request = read((FUNCTION, q.min_stars(3)), (CLASS, q.min_stars(4, profile="read")))
    assert stars(request) == {"run overall": 3.0, "read overall": 4.0}


def test_zero_stars_of_a_closer_mark_take_an_outer_bound_back():
    assert stars(read((FUNCTION, q.min_stars(0)), (MODULE, q.min_stars(4)))) == {"run overall": 0.0}


def test_stars_that_name_no_rating_are_misuse_even_beside_others():
    with pytest.raises(Misuse, match="no least number of stars"):
        read((FUNCTION, q.min_stars(profile="read")), (MODULE, q.min_stars(4)))


def test_the_closest_pass_at_k_wins_with_its_own_stars():
    request = read(
        (FUNCTION, q.min_pass_at_k(0.2, k=2, stars=3)), (MODULE, q.min_pass_at_k(0.9, k=5, stars=5))
    )
    assert stars(request) == {"pass@2": 0.2}
    assert request.sample_stars == 3


def test_pass_at_k_stands_beside_stars_and_speed():
    request = read((FUNCTION, q.min_pass_at_k(0.5)), (FUNCTION, q.min_stars(2)), (CLASS, q.max_ttft(500)))
    assert stars(request) == {"run overall": 2.0, "pass@1": 0.5}
    assert (len(request.bounds), len(request.all_bounds)) == (1, 3)
    assert request.sample_stars == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (q.min_stars(4), q.min_stars(5)),
        (q.min_pass_at_k(0.5, k=1), q.min_pass_at_k(0.8, k=5)),
        (q.min_pass_at_k(0.5, stars=3), q.min_pass_at_k(0.5, stars=4)),
    ],
)
def test_two_different_bounds_on_stars_in_one_place_conflict(first, second):
    with pytest.raises(Misuse, match="two bounds of the same kind conflict"):
        read((FUNCTION, first), (FUNCTION, second))


def test_different_ratings_in_one_place_and_the_same_bound_twice_are_fine():
    pairs = [(FUNCTION, q.min_stars(4)), (FUNCTION, q.min_stars(documentation=3)), (FUNCTION, q.min_stars(4))]
    assert stars(read(*pairs)) == {"run overall": 4.0, "run documentation": 3.0}
    samples = q.min_pass_at_k(0.5, k=2)
    assert stars(read((FUNCTION, samples), (FUNCTION, samples))) == {"pass@2": 0.5}


def test_answer_and_scenario_come_from_different_marks():
    request = read((FUNCTION, q.answer("a.md")), (MODULE, q.answer("b.md", scenario="fastapi-crud")))
    assert (request.answer.path, request.answer.scenario) == ("a.md", "fastapi-crud")
    request = read(
        (FUNCTION, q.answer(scenario="other")), (MODULE, q.answer("b.md", scenario="fastapi-crud"))
    )
    assert (request.answer.path, request.answer.scenario) == ("b.md", "other")


def test_a_test_without_stars_has_none():
    request = read((FUNCTION, q.max_ttft(500)))
    assert request.rated == ()
    assert request.answer.path is None
