"""Shipped data: where it is, and what a model id or a folder leads to."""

import json

import pytest

from pytest_qwen import data
from pytest_qwen.errors import ModelUnusable


def test_the_five_benchmarked_models_and_the_embedded_ones_are_shipped():
    wanted = {
        "Qwen/Qwen2.5-Coder-7B-Instruct",
        "Qwen/Qwen2.5-Coder-32B-Instruct",
        "Qwen/Qwen3-32B",
        "Qwen/Qwen3-30B-A3B",
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "embedded/qwen2-tiny",
        "embedded/qwen3-tiny",
        "embedded/qwen3-moe-tiny",
    }
    assert wanted <= set(data.known_models())


@pytest.mark.parametrize("model", data.known_models())
def test_every_shipped_configuration_gives_a_shape(model):
    shape = data.find_shape(model)
    assert shape is not None
    assert shape.parameters > 0


@pytest.mark.parametrize("model", ["embedded/qwen2-tiny", "embedded/qwen3-tiny", "embedded/qwen3-moe-tiny"])
def test_embedded_models_are_small_enough_for_a_cpu(model):
    shape = data.find_shape(model)
    assert shape is not None
    assert 5e6 < shape.parameters < 30e6
    assert shape.vocab == 512


def test_a_local_folder_is_read(tmp_path):
    source = data.find_config("embedded/qwen2-tiny")
    (tmp_path / "config.json").write_text(json.dumps(source))
    found = data.find_shape(str(tmp_path))
    shipped = data.find_shape("embedded/qwen2-tiny")
    assert found is not None
    assert shipped is not None
    assert found.parameters == shipped.parameters


@pytest.mark.parametrize("model", ["nobody/nothing", "../models/embedded__qwen2-tiny", ""])
def test_what_is_not_at_hand_is_none(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert data.find_shape(model) is None


@pytest.mark.parametrize("text", ["{ not json", "[1, 2]"])
def test_a_broken_configuration_is_the_models_fault(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelUnusable, match=r"config\.json"):
        data.find_shape(str(tmp_path))


def test_folders_of_an_installed_package_come_first(tmp_path, monkeypatch):
    package = tmp_path / "pytest_qwen"
    monkeypatch.setattr(data, "_PACKAGE", package)
    assert data.fixtures_dir() == tmp_path / "fixtures"
    (package / "_data" / "fixtures").mkdir(parents=True)
    assert data.fixtures_dir() == package / "_data" / "fixtures"
    assert data.suites_dir() == tmp_path / "suites"
