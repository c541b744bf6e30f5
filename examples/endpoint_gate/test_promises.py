"""What the users of our chat service are promised, under the load of an ordinary afternoon."""

from pytest_qwen import (
    max_e2e_latency,
    max_longest_gap,
    max_tpot,
    max_ttft,
    min_goodput,
    min_tokens_per_sec,
    workload,
)

pytestmark = workload(prompt_tokens=256, output_tokens=64)


@max_ttft(500)
@min_tokens_per_sec(20)
def test_it_answers(llm):
    """One user and a real question: the answer that is timed is the one that is looked at."""
    answer = llm.chat([{"role": "user", "content": "Write a function that reverses a string in Python."}])
    assert "def " in answer.text


@workload(concurrency=16)
@max_ttft(800, stat="p95")
@max_tpot(50)
@max_longest_gap(1000)
@min_tokens_per_sec(200, scope="system")
def test_sixteen_at_once(llm):
    """Sixteen users, each asking again as soon as the answer is there. No request may fail."""
    llm.measure()


@workload(request_rate=20)
@max_e2e_latency(5000, stat="p95")
@min_goodput(15, ttft=800, tpot=50)
def test_twenty_a_second(llm):
    """Twenty requests a second at random times, whatever the server does: 15 of them in time."""
    llm.measure()
