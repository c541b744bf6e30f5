"""The `finetune` fixture in a session: bounds, records, misuse, and what a CPU cannot do."""

import json
from pathlib import Path

import pytest

from .conftest import Run, text_of

pytest.importorskip("peft")

SOURCE = """
    from pytest_qwen import max_step_time

    pytestmark = model("embedded/qwen2-tiny")

    @max_step_time(100)
    @max_vram(50)
    def test_adapters(finetune, record_property):
        tuned = finetune("lora", tokens=32, rank=4)
        assert tuned.loaded.load_s > 0
        assert abs(tuned.error) < 0.05, tuned
"""


def test_bounds_records_and_replay(run: Run, tmp_path: Path) -> None:
    result = run(SOURCE, "--gpu=cpu", f"--qwen-report={tmp_path}", engine="transformers")
    text = text_of(result)
    result.assert_outcomes(passed=1)
    assert "2 PASS, 0 FAIL, 0 NO VERDICT" in text
    assert "max_step_time ≤ 100 s" in text
    record = json.loads((tmp_path / "records.json").read_text())["records"][0]
    measured = record["measurements"][0]
    assert measured["observed"]["allocated_gb"] > 0
    assert measured["rounds"][0]["metrics"]["step_time_s"] > 0
    again = run(None, f"--qwen-replay={tmp_path}", "--gpu=cpu", engine="transformers")
    again.assert_outcomes(passed=1)


def test_misuse_and_what_a_cpu_cannot_do(run: Run) -> None:
    source = """
        from pytest_qwen import max_step_time

        pytestmark = model("embedded/qwen2-tiny")

        def test_misspelt(finetune):
            finetune("loar")

        def test_4_bits(finetune):
            finetune("qlora")

        @max_step_time(1)
        def test_forgotten(finetune):
            pass

        @max_step_time(1)
        def test_elsewhere(gpu):
            pass

        @max_step_time(1)
        def test_generating(llm):
            llm.measure()

        @min_tokens_per_sec(1)
        def test_training(finetune):
            finetune("lora", tokens=16, rank=1)

        @max_slowdown(1.2, vs={"optimize": "static"})
        def test_compared(finetune):
            finetune("lora", tokens=16, rank=1)
    """
    result = run(source, "--gpu=cpu", "-rs", engine="transformers")
    text = text_of(result)
    result.assert_outcomes(failed=3, skipped=1, errors=3)
    assert "'finetune' is missing" in text
    assert "'llm' is missing" in text
    for part in (
        "did you mean 'lora'?",
        "Q-LoRA needs a GPU",
        "nothing was measured",
        "measures nothing",
        "two calls",
    ):
        assert part in text


def test_a_bound_that_generating_could_not_meet_is_no_refusal_of_training(run: Run) -> None:
    """15.4 GB of weights in 16 bits exceed 12 GB; a base in 4 bits does not. A plan lists no such test."""
    source = """
        @model("Qwen/Qwen-7B", weights="dummy")
        @max_vram(12)
        def test_it(finetune):
            finetune("qlora")
    """
    result = run(source, "--gpu=h100", "--qwen-plan", engine="transformers")
    assert "impossible" not in text_of(result)
    assert result.ret == pytest.ExitCode.OK
