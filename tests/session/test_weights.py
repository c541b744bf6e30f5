"""Models that cannot be loaded, on the real engine: no such folder, truncated weights, refused formats."""

from pathlib import Path

import pytest

from .conftest import Run, text_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with configuration and safetensors weights of a model of a few kilobytes."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("tiny")
    config = transformers.Qwen2Config(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=300,
        max_position_embeddings=64,
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def test_unusable_models_each_say_why_under_xdist_too(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    corrupt, pickled = tmp_path / "corrupt", tmp_path / "pickled"
    for folder in (corrupt, pickled):
        folder.mkdir()
        for file in tiny_model.glob("*.json"):
            (folder / file.name).write_bytes(file.read_bytes())
    whole = (tiny_model / "model.safetensors").read_bytes()
    (corrupt / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04never unpickled")
    result = run(
        f"""
        @model("/no/such/folder")
        def test_nowhere(llm): pass

        @model({str(corrupt)!r})
        @max_ttft(5000)
        def test_corrupt(llm): llm.measure()

        @model({str(pickled)!r})
        def test_pickled(llm): pass

        @model("no/such/folder")
        def test_plain(): pass
        """,
        "-n",
        "2",
        engine="transformers",
    )
    text = text_of(result)
    result.assert_outcomes(errors=3, passed=1)
    assert "model '/no/such/folder' cannot be found" in text
    assert f"the weights of {str(corrupt)!r} are corrupt" in text
    assert "has no *.safetensors file; other weight formats are refused" in text
