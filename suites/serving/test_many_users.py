"""One user against many: what each feels and what the server gives in all, beside published figures."""

import pytest

from pytest_qwen import model, sla
from pytest_qwen.outcomes import NoVerdict

TABLE = ("infrastructure", "vLLM against Ollama")
NAMES = {"vllm": "vLLM", "ollama": "Ollama"}
COMPARED = {"vllm": "vLLM", "ollama": "Ollama", "sglang": "SGLang", "llama-cpp": "llama.cpp"}
NO_CRITERION = "published without a criterion; ours: median TTFT ≤ 500 ms and 30 tok/s for each user"
LATENCY_OF_WHAT = "published without saying of what; ours is the time to the first token"


def test_one_against_many(server, published):
    """More users get more in all and each of them less; nobody is sent away."""
    levels = [server.users(count) for count in server.scale.users]
    assert [level.failed for level in levels] == [0] * len(levels)
    alone, *crowds = levels
    for crowd in crowds:
        assert crowd.system_tokens_per_sec > alone.system_tokens_per_sec
    if server.full and server.engine in NAMES:
        sixteen = levels[server.scale.users.index(16)]
        name, ours = NAMES[server.engine], f"published for 32B in AWQ, ours is {server.llm.spec.model}"
        rate = sixteen.system_tokens_per_sec
        published(*TABLE, f"{name}, 16 users", system_tokens_per_sec=rate, why=ours)
        why = f"{LATENCY_OF_WHAT}; {ours}"
        published(*TABLE, f"{name}, P99 latency", p99_latency_ms=sixteen.ttft_p99_ms, why=why)


@model(engine="endpoint")  # for the bounds of the preset; which server it is, `server` decides
@sla("interactive")
def test_most_users(server, published):
    """The most users whose answers begin within half a second and flow at 30 tokens a second."""
    found = server.llm.highest(concurrency=server.scale.search, **server.work)
    reasons = {verdict.reason for level in found.levels for verdict in level.verdicts}
    if found.value is None and reasons & {NoVerdict.CLIENT_LAG, NoVerdict.CLIENT_BEHIND}:
        pytest.skip(f"this machine cannot keep the load up: {found}")
    assert found.value is not None, str(found)
    if server.full and server.engine in COMPARED:
        row = COMPARED[server.engine]
        published("infrastructure", "engine comparison", row, concurrent_users=found.value, why=NO_CRITERION)
    if server.full and server.engine in NAMES:
        row = f"{NAMES[server.engine]}, most users"
        published(*TABLE, row, concurrent_users=found.value, why=NO_CRITERION)
