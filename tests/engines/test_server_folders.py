"""What servers are given for random weights: a tokenizer that every library reads alike, and no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_qwen import data
from pytest_qwen.engines import served_folders
from pytest_qwen.engines.dummy_words import BEGIN, END, vocabulary
from pytest_qwen.engines.served_folders import written, written_gguf, written_with_weights
from pytest_qwen.errors import ModelUnusable, Unavailable


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("size", [100, 512, 30_000])
def test_a_vocabulary_has_its_size_and_makes_every_token_of_two_others(size: int) -> None:
    made = vocabulary(size, begin=0, end=size - 1)
    assert len(set(made.tokens)) == size
    assert (made.tokens[0], made.tokens[-1]) == (BEGIN, END)
    known = set(made.tokens)
    for left, right in made.merges:
        assert {left, right, left + right} <= known


def test_words_are_tokens_in_both_ways() -> None:
    from tokenizers import Tokenizer

    folder = written("Qwen/Qwen3-8B")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = " ba bebi babebi ba"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) == 4
    assert tokenizer.decode(ids) == text
    assert tokenizer.get_vocab_size() == data.find_shape("Qwen/Qwen3-8B").vocab
    config = json.loads((folder / "config.json").read_text())
    assert tokenizer.token_to_id(END) == config["eos_token_id"]


@pytest.mark.parametrize("model", data.known_models())
def test_every_shipped_shape_makes_a_folder(model: str) -> None:
    folder = written(model)
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == data.find_shape(model).vocab
    assert config["model_type"] != "qwen"  # what servers want foreign code for
    assert "eos_token_id" not in json.loads((folder / "generation_config.json").read_text())


def test_the_hubs_library_reads_it_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer = AutoTokenizer.from_pretrained(written("embedded/qwen2-tiny"))
    assert len(tokenizer) == 512
    assert len(tokenizer(" ba be bi")["input_ids"]) == 3
    turns = [{"role": "user", "content": "ba"}]
    assert tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>user\nba<|im_end|>\n<|im_start|>assistant\n"
    )


def test_equal_loads_share_a_folder_and_unequal_ones_do_not() -> None:
    assert written("embedded/qwen2-tiny") == written("embedded/qwen2-tiny")
    assert written("embedded/qwen2-tiny") != written("embedded/qwen3-tiny")
    assert written_gguf("embedded/qwen2-tiny", 0) == written_gguf("embedded/qwen2-tiny", 0)
    assert written_gguf("embedded/qwen2-tiny", 0) != written_gguf("embedded/qwen2-tiny", 1)


def test_a_failed_writing_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    def fail(_folder: Path, _seed: int) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        written_with_weights("embedded/qwen2-tiny", 0, fail)
    assert list((tmp_path / "cache" / "pytest-qwen" / "served").iterdir()) == []


@pytest.mark.parametrize("model", ["embedded/qwen2-tiny", "embedded/qwen3-tiny"])
def test_a_file_for_llama_cpp_has_the_shapes_size(model: str) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(written_gguf(model, 0))
    assert sum(int(tensor.n_elements) for tensor in reader.tensors) == data.find_shape(model).parameters


def test_what_is_too_much_or_unknown_is_said() -> None:
    with pytest.raises(Unavailable, match="vllm, sglang"):
        written_gguf("Qwen/Qwen3-32B", 0)
    with pytest.raises(Unavailable, match="dense models only"):
        written_gguf("embedded/qwen3-moe-tiny", 0)
    with pytest.raises(ModelUnusable, match="random weights need a configuration"):
        served_folders.written("nobody/nothing")
