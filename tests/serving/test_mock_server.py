"""The mock server does what its script says, logs what it did, and takes nothing that it cannot play."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_qwen.errors import Misuse
from pytest_qwen.mock_server.script import struck
from pytest_qwen.testing import MockServer, ServerScript
from tests.serving.asking import WORDS, ask, stream

FAST = {"ttft_ms": 4.0, "gap_ms": 2.0}
MODELS = {
    "mock": {},
    "chunky": {"tokens_per_chunk": 4},
    "empty-first": {"empty_first_ms": 1.0, "ttft_ms": 8.0},
    "stalls": {"stall_at": 3, "stall_s": 0.05},
    "counts-each": {"usage": "each"},
    "never-counts": {"usage": "never"},
    "short": {"answer_tokens": 3},
    "says": {"text": "def add(a, b): return a + b", "answer_tokens": 7},
    "strict": {"strict": True},
    "small": {"max_model_len": 12},
    **{
        fault: {"fault": fault}
        for fault in ("end", "cut", "reset", "malformed", "error-event", "no-finish", "html", "content-type")
    },
    "busy": {"fault": "status", "status": 429, "retry_after_s": 7, "fault_share": 0.5},
}


@pytest.fixture(scope="module")
def server():
    with MockServer(models=MODELS, **FAST) as running:
        yield running


def last(server):
    return server.log()[-1]


def test_a_stream_is_what_openai_documents_and_is_logged_as_sent(server):
    said = stream(server.url)
    assert said.headers["Content-Type"].startswith("text/event-stream")
    assert len(said.words) == 6
    assert said.events[-2]["choices"][0]["finish_reason"] == "length"
    assert said.events[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
    assert said.events[-1]["choices"] == []
    assert said.done
    served = last(server)
    assert (served.ended, served.chunk_tokens, served.output_tokens) == ("complete", (1,) * 6, 6)
    # never earlier than the script, in order, and all of it between the client's own two clock readings
    assert min(served.late_ms) >= 0
    moments = [said.started_ns, served.received_ns, *served.chunk_ns, said.ended_ns]
    assert moments == sorted(moments)
    assert served.ttft_ms >= 4.0
    assert [b - a for a, b in pairwise(served.due_ns)] == [2_000_000] * 5


def test_completions_and_answers_in_one_piece(server):
    streamed = ask(server.url, "/completions", model="mock", prompt=[5, 6, 7], stream=True, max_tokens=3)
    assert len(streamed.words) == 3
    assert not [event for event in streamed.events if "usage" in event]  # nobody asked for the counts
    whole = ask(server.url, "/completions", model="mock", prompt=[5, 6, 7], max_tokens=3).json
    assert whole["choices"][0]["text"] == "".join(streamed.words)
    assert whole["usage"]["prompt_tokens"] == 3
    chat = ask(server.url, model="mock", max_tokens=2, **WORDS).json
    assert len(chat["choices"][0]["message"]["content"].split()) == 2


def test_equal_prompts_get_equal_answers_and_others_do_not(server):
    other = [{"role": "user", "content": "four five six"}]
    assert stream(server.url).words == stream(server.url).words != stream(server.url, messages=other).words


def test_chunks_of_several_tokens_keep_the_rate_of_tokens(server):
    assert len(stream(server.url, model="chunky", max_tokens=10).words) == 3
    served = last(server)
    assert served.chunk_tokens == (4, 4, 2)
    assert [b - a for a, b in pairwise(served.due_ns)] == [8_000_000, 4_000_000]


def test_an_empty_first_chunk_comes_before_the_first_token(server):
    said = stream(server.url, model="empty-first")
    assert said.events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    served = last(server)
    assert served.received_ns < served.empty_ns < served.chunk_ns[0]
    assert len(served.chunk_ns) == 6


def test_a_stall_is_one_long_gap(server):
    stream(server.url, model="stalls")
    assert [gap >= 50 for gap in last(server).gaps_ms] == [False, False, True, False, False]


def test_when_tokens_are_counted(server):
    each = [
        event["usage"]["completion_tokens"] for event in stream(server.url, model="counts-each").events[:-1]
    ]
    assert each == [1, 2, 3, 4, 5, 6]
    assert not [event for event in stream(server.url, model="never-counts").events if "usage" in event]


def test_an_answer_ends_by_itself_unless_told_not_to(server):
    said = stream(server.url, model="short")
    assert len(said.words) == 3
    assert said.events[-2]["choices"][0]["finish_reason"] == "stop"
    assert len(stream(server.url, model="short", ignore_eos=True).words) == 6
    assert len(stream(server.url, model="short", min_tokens=5).words) == 5
    assert "".join(stream(server.url, model="says", max_tokens=99).words) == "def add(a, b): return a + b"
    assert "".join(stream(server.url, model="says", max_tokens=99, stop="return").words) == "def add(a, b):"


@pytest.mark.parametrize(
    ("fault", "whole_body", "tokens", "event"),
    [
        ("end", True, 3, None),
        ("malformed", True, 3, '{"id": "mock", "choi'),
        ("error-event", True, 3, "this answer is meant to fail"),
        ("no-finish", True, 6, None),
        ("cut", False, 3, None),
        ("reset", False, 3, None),
    ],
)
def test_broken_streams_break_as_they_say(server, fault, whole_body, tokens, event):
    try:
        text = stream(server.url, model=fault).text
    except (http.client.IncompleteRead, ConnectionResetError):
        text = None
    assert (text is not None) == whole_body
    if text is not None:
        assert "[DONE]" not in text
        assert '"finish_reason": "' not in text
        assert event is None or event in text
    served = last(server)
    assert (served.ended, served.output_tokens) == (fault, tokens)


@pytest.mark.parametrize("model", ["mock", "end", "malformed", "no-finish", "html", "content-type", "busy"])
def test_the_next_request_may_come_on_the_same_connection(server, model):
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=5)
    body = json.dumps({"model": model, "stream": True, "max_tokens": 2, **WORDS})
    for _ in range(3):
        connection.request("POST", "/v1/chat/completions", body)
        assert connection.getresponse().read()
    connection.close()


def test_a_page_and_a_wrong_content_type(server):
    page = stream(server.url, model="html")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert stream(server.url, model="content-type").headers["Content-Type"] == "application/json"


def test_a_share_of_requests_is_refused_evenly(server):
    stream(server.url)  # of another model: does not count
    before = len(server.log())
    assert [stream(server.url, model="busy").status for _ in range(4)].count(429) == 2
    refused = [one for one in server.log()[before:] if one.ended == "refused"]
    assert [(one.status, one.chunk_ns) for one in refused] == [(429, ()), (429, ())]


@pytest.mark.parametrize(
    ("share", "spared", "expected"), [(0.1, 0, {9, 19}), (0.1, 5, {14}), (1.0, 18, {18, 19}), (0, 0, set())]
)
def test_which_requests_a_share_strikes(share, spared, expected):
    assert {number for number in range(20) if struck(number, share, spared)} == expected


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "gpt"}, 404, "The model `gpt` does not exist"),
        ({"n": 2}, 400, "n must be 1"),
        ({"max_tokens": 0}, 400, "max_tokens must be"),
        ({"messages": []}, 400, "'messages' must be"),
        ({"model": "strict", "ignore_eos": True}, 400, "Unrecognized request argument supplied: ignore_eos"),
        ({"model": "small"}, 400, "maximum context length is 12 tokens"),
        ({"mock": {"gap": 5}}, 400, "did you mean 'gap_ms'?"),
        ({"mock": {"fault_share": 3}}, 400, "a share from 0 to 1"),
    ],
)
def test_requests_that_it_cannot_serve_are_refused_in_words(server, body, status, words):
    said = stream(server.url, **body)
    assert said.status == status
    assert words in said.json["error"]["message"]


def test_a_request_may_change_the_script_for_itself(server):
    stream(server.url, mock={"tokens_per_chunk": 6})
    assert last(server).chunk_tokens == (6,)
    stream(server.url)
    assert last(server).chunk_tokens == (1,) * 6


def test_the_routes_beside_answers(server):
    listed = ask(server.url, "/models", method="GET").json["data"]
    assert [row["id"] for row in listed] == list(MODELS)
    assert listed[0] | {"max_model_len": 32768, "owned_by": "vllm"} == listed[0]
    root = server.url.removesuffix("/v1")
    assert ask(root, "/health", method="GET").status == 200
    assert "mock" in ask(root, "/version", method="GET").json["version"]
    assert ask(root, "/tokenize", model="mock", prompt="one two three").json["count"] == 3
    assert ask(root, "/nothing", method="GET").status == 404
    assert ask(root, "/is_sleeping", method="GET").json == {"is_sleeping": False}
    assert ask(root, "/sleep?level=1").status == 200
    assert stream(server.url).status == 503
    assert ask(root, "/wake_up").status == 200
    assert stream(server.url).status == 200


def at_once(url, count, **body):
    threads = [threading.Thread(target=stream, args=(url,), kwargs=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_queue_a_crowd_and_a_prefix_cache():
    script = {
        "max_streams": 2,
        "slowdown": 1.0,
        "prefix_cache": True,
        "prefill_ms": 0.01,
        "api_key": "s3cret",
    }
    long = [{"role": "user", "content": " ".join(f"word{n}" for n in range(60))}]
    # long enough for four threads to have asked before the first token is due
    with MockServer(ttft_ms=300.0, gap_ms=2.0, **script) as server:
        assert stream(server.url).status == 401
        at_once(server.url, 4, key="s3cret", messages=long)
        served = server.log()
        starts = sorted((one.received_ns, one.chunk_ns[0], one.ended_ns) for one in served)
        # the third's first token waited for one of the first two to end
        assert sorted(first for _, first, _ in starts)[2] > min(ended for _, _, ended in starts)
        # while two were made at once each gap was twice as long
        assert max(b - a for one in served for a, b in pairwise(one.due_ns)) == 4_000_000
        assert [one.cached_tokens for one in served] == [0, 48, 48, 48]
        text = ask(server.url.removesuffix("/v1"), "/metrics", method="GET", key="s3cret").text
        assert 'vllm:prefix_cache_hits_total{model_name="mock"} 144' in text
        assert 'vllm:num_requests_waiting{model_name="mock"} 0' in text
        assert "s3cret" not in server.log_path.read_text()


def test_silence_and_what_is_being_answered_at_the_end():
    with MockServer(fault="silence", spared=1, **FAST) as server:
        assert len(stream(server.url).words) == 6
        with pytest.raises(TimeoutError):
            stream(server.url, timeout=0.2)
        with pytest.raises(TimeoutError):
            stream(server.url, timeout=0.2, mock={"spared": 9, "ttft_ms": 60_000})
        hanging = http.client.HTTPConnection(server.url.split("/")[2])
        body = {"model": "mock", "stream": True, "max_tokens": 4, **WORDS}
        hanging.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = hanging.getresponse()
        for _ in range(4):
            answer.readline()  # two events, each with its empty line: all that will come
        served = server.stop()
        hanging.close()
    assert [one.ended for one in served] == ["complete", "client-left", "client-left", "shutdown"]
    assert [one.output_tokens for one in served] == [6, 3, 0, 2]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({"ttft": 3}, "did you mean 'ttft_ms'?"),
        ({"ttft_ms": "3"}, "give float or int"),
        ({"ttft_ms": True}, "give float or int"),
        ({"ttft_ms": -1.0}, "a number from 0"),
        ({"fault": "explode"}, "'malformed'"),
        ({"tokens_per_chunk": 0}, "a whole number from 1"),
        ({"status": 200}, "400 to 599"),
        ({"models": {"a": {"gap": 1}}}, "did you mean 'gap_ms'?"),
        ({"models": ()}, "needs the name of a model"),
    ],
)
def test_a_script_that_cannot_be_played_is_refused(script, words):
    with pytest.raises(Misuse, match=words.replace("?", r"\?")):
        MockServer(**script)


def test_the_command_prints_its_address_and_ends_when_told():
    command = [sys.executable, "-m", "pytest_qwen.mock_server", "--port=0", "--gap-ms=1", "--ttft-ms=1"]
    command += ["--model=a", '--model=b={"tokens_per_chunk": 3}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        url = running.stdout.readline().strip()
        assert len(stream(url, model="a").words) == 6
        assert len(stream(url, model="b").words) == 2
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0


@pytest.mark.parametrize(
    "wrong", ["--fault-share=2", "--fault=explode", "--gap=2", '--model=a={"gap": 1}', "--model=a={"]
)
def test_the_command_takes_nothing_that_it_cannot_play(wrong):
    done = subprocess.run(
        [sys.executable, "-m", "pytest_qwen.mock_server", wrong], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_ends_with_the_process_that_started_it():
    code = "import os, sys, time\nfrom pytest_qwen.testing import MockServer\nserver = MockServer()\n"
    code += "print(server.pid, flush=True)\nos.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    # its standard error closes when it is gone, which ended the run above; at the latest it is a zombie now
    for _ in range(1000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            break
        os.sched_yield()
    else:
        pytest.fail("the server is still there")


def test_every_field_is_an_option_of_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "pytest_qwen.mock_server", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    for name in ServerScript().as_dict():
        assert f"--{name.replace('_', '-')}" in done.stdout
