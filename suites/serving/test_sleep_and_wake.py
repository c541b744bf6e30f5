"""Putting a model to sleep and waking it, against starting its server: the published table of switching."""

import pytest

TABLE = ("infrastructure", "model switching")


def test_switching(load, arguments, published, record_property):
    """Asleep its weights are in the host's memory; awake it answers as before."""
    started = arguments.get("engine") == "vllm"
    if not started and arguments.get("id") != "mock":
        pytest.skip("only what this run starts is put to sleep, and of servers vLLM can")
    llm = load(**{**arguments, **({"options": {"sleep": True}} if started else {})})
    asked = {"prompt": "1 2 3 4 5", "output_tokens": 16, "ignore_eos": True}
    before = llm.generate(**asked)
    asleep_s, awake_s = llm.sleep(level=1), llm.wake()
    assert llm.generate(**asked).text == before.text
    record_property("qwen.switching", f"asleep in {asleep_s:.2f} s, awake in {awake_s:.2f} s")
    if started:
        cold_s = llm.loaded.load_s
        both = asleep_s + awake_s
        published(*TABLE, "instant", offload_seconds=asleep_s, reload_seconds=awake_s, switch_seconds=both)
        published(*TABLE, "cold", load_seconds=cold_s, why="from starting the server until it answers")
        assert both < cold_s
