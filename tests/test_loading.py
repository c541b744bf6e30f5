"""What a test loads: marks over options over defaults that depend on the card."""

import pytest

from pytest_qwen import gpus
from pytest_qwen.ask import RunRequest
from pytest_qwen.errors import Misuse
from pytest_qwen.loading import DEFAULT_MODEL_LEN, default_optimize, load_spec, workload_request
from pytest_qwen.markers import Model, Workload
from pytest_qwen.settings import Settings
from pytest_qwen.target import Target


def spec(alias="cpu", *, workload=None, settings=None, overrides=None, **model):
    card = gpus.lookup(alias)
    request = RunRequest(model=Model(**model), workload=workload or Workload())
    return load_spec(request, settings or Settings(), Target(asked=alias, spec=card), overrides)


@pytest.mark.parametrize(
    ("alias", "profile"),
    [
        ("cpu", "eager"),
        ("t4", "static"),
        ("l4", "compile"),
        ("a100-80", "compile"),
        ("h100", "max"),
        ("h200", "max"),
    ],
)
def test_each_card_has_its_default_profile(alias, profile):
    assert default_optimize(gpus.lookup(alias)) == profile
    assert spec(alias, id="a/b").optimize == profile


@pytest.mark.parametrize(("alias", "dtype"), [("cpu", "float32"), ("t4", "float16"), ("l4", "bfloat16")])
def test_each_card_has_its_default_dtype(alias, dtype):
    assert spec(alias, id="a/b").dtype == dtype


def test_a_mark_wins_over_the_option_and_a_call_over_the_mark():
    settings = Settings(model="option/model", engine="fake")
    assert spec(settings=settings).model == "option/model"
    assert spec(settings=settings, id="mark/model").model == "mark/model"
    assert spec(settings=settings, id="mark/model", overrides={"id": "call/model"}).model == "call/model"


def test_no_model_at_all_is_misuse():
    with pytest.raises(Misuse, match="nothing says which"):
        spec()


def test_embedded_models_need_no_download():
    assert spec(id="embedded/qwen2-tiny").weights == "dummy"
    assert spec(id="a/b").weights == "real"


def test_equal_requests_have_equal_keys_and_a_differing_one_has_not():
    assert spec(id="a/b").key == spec(id="a/b").key
    assert spec(id="a/b").key != spec(id="a/b", dtype="float16").key


def test_one_length_serves_every_small_workload_and_long_ones_get_room():
    small = Workload(prompt_tokens=64, output_tokens=128)
    assert spec(id="a/b", workload=small).max_model_len == DEFAULT_MODEL_LEN
    assert spec(id="a/b", workload=Workload(prompt_tokens=5000)).max_model_len == 8192


def test_a_workload_is_random_tokens_of_fixed_length_unless_it_has_a_prompt():
    request = workload_request(Workload())
    assert request.prompt_tokens == 64
    assert request.ignore_eos
    assert workload_request(Workload(prompt="hello")).prompt_tokens is None
