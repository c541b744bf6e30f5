"""Side by side on one model: a server and the library's own decoding, and a faster one with other answers."""

import pytest

VLLM = ("quantization", "memory and speed", "Qwen-72B BF16 vLLM")
BATCHING = ("infrastructure", "vLLM against Ollama", "continuous against static batching")
USERS = 16


def test_beside_transformers(server, load, arguments, published, record_property):
    """One user and sixteen: a server's batches come and go, the library's batch stays together."""
    if arguments.get("engine") != "vllm":
        pytest.skip("set beside the library's own decoding where this run starts vLLM")
    served = {count: server.users(count).system_tokens_per_sec for count in (1, USERS)}
    library = load(**{**arguments, "engine": "transformers"}, optimize="eager")
    rates = {}
    for count in (1, USERS):
        found = library.measure(**server.work, batch_size=count).values("output_tokens_per_sec")
        rates[count] = sorted(found)[len(found) // 2]
        record_property(
            f"qwen.side_by_side.{count}", f"vLLM {served[count]:.1f} tok/s, eager {rates[count]:.1f} tok/s"
        )
    why = "7B, bf16, the same prompts; ours with the time to the first token in it"
    published(*VLLM, against="Qwen-72B BF16", tokens_per_sec=served[1] / rates[1], why=why)
    why = "sixteen equal requests: none waits for a longer one in its batch"
    published(*BATCHING, throughput_times=served[USERS] / rates[USERS], why=why)
    assert served[1] > rates[1]


def test_faster_but_different(compare, arguments):
    """Two models of the stand-in: the comparison says how much faster, and that the answers differ."""
    if arguments.get("id") != "mock":
        pytest.skip("there is one server in this run: compare(vs=...) needs two")
    found = compare(vs={**arguments, "id": "mock"}, **{**arguments, "id": "mock-faster"})
    assert found.speedup > 1.2
    assert found.agreement == 0
    assert any("answers differently" in hint for hint in found.b.hints)
