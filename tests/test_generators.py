"""Result files of other load generators, recorded with them against the mock server, read into streams.

Four requests each, 50 ms to the first token and 5 ms a token. In the "end" files the server ended one answer
cleanly half way, in the "status" files it refused one with HTTP 500. guidellm's aggregates are cut out.
"""

import json
from pathlib import Path

import pytest

from pytest_qwen import generators
from pytest_qwen.errors import Misuse

DATA = Path(__file__).parent / "data" / "generators"
FILES = {"vllm bench": "vllm-bench-{}.json", "guidellm": "guidellm-{}.json", "aiperf": "aiperf-{}.jsonl"}


def recorded(tool, kind):
    return generators.read(DATA / FILES[tool].format(kind))


@pytest.mark.parametrize("tool", FILES)
def test_times_are_those_of_the_requests(tool):
    recording = recorded(tool, "end")
    assert recording.tool == tool
    assert len(recording.streams) == 4
    for stream in recording.streams:
        assert 50 < stream.ttft_ms < 65
        assert stream.ttft_ms < stream.last_ms <= stream.e2e_ms < 100
        assert 0 <= stream.sent_ms == stream.scheduled_ms < 200
    whole = [stream for stream in recording.streams if stream.last_ms - stream.ttft_ms > 30]
    assert len(whole) == 3
    # 7 gaps of 5 ms; that a late first chunk shortens them was the generator's doing
    assert all(27 < stream.last_ms - stream.ttft_ms < 38 for stream in whole)
    assert all(stream.output_tokens == 8 for stream in whole)


def test_what_an_answer_that_ended_half_way_looks_like_in_each():
    cut = {
        tool: min(recorded(tool, "end").streams, key=lambda stream: stream.last_ms - stream.ttft_ms)
        for tool in FILES
    }
    # four tokens came: vllm bench counts four, guidellm books the eight that were asked for
    assert (cut["vllm bench"].state, cut["vllm bench"].output_tokens) == ("ok", 4)
    assert (cut["guidellm"].state, cut["guidellm"].output_tokens) == ("ok", 8)
    # aiperf keeps the server's count apart from its own, so that its absence shows
    assert (cut["aiperf"].state, cut["aiperf"].output_tokens) == ("no-usage", None)
    for tool in FILES:
        assert any("half way" in words for words in recorded(tool, "end").hides)


@pytest.mark.parametrize("tool", FILES)
def test_failures_are_failures(tool):
    streams = recorded(tool, "status").streams
    assert sorted(stream.state for stream in streams) == ["http-error", "ok", "ok", "ok"]
    (failed,) = (stream for stream in streams if not stream.complete)
    assert "Internal Server Error" in failed.detail or "500" in failed.detail
    assert "\n" not in failed.detail
    assert failed.ttft_ms is failed.output_tokens is None


def test_gaps_are_there_where_the_file_has_them():
    assert [len(stream.gaps_ms) for stream in recorded("vllm bench", "end").streams] == [7, 7, 7, 3]
    assert sorted(len(stream.gaps_ms) for stream in recorded("aiperf", "end").streams) == [3, 7, 7, 7]
    guidellm = recorded("guidellm", "end")
    assert guidellm.version == "0.8.1"
    assert {stream.longest_gap_ms for stream in guidellm.streams} == {None}
    assert any("longest gap" in words for words in guidellm.hides)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.json", None, "cannot be read"),
        ("page.json", "<html>", "not as its tool writes it"),
        ("other.json", json.dumps({"a": 1}), "no result file with requests"),
        ("empty.jsonl", "", "no result file with requests"),
        # a summary: vllm bench without --save-detailed, aiperf's own JSON
        ("summary.json", json.dumps({"mean_ttft_ms": 1.0, "completed": 3}), "--save-detailed"),
        ("aiperf.json", json.dumps({"request_latency": {"avg": 1.0}}), "profile_export.jsonl"),
        ("torn.json", json.dumps({"itls": [[]], "start_times": [1.0]}), "KeyError"),
        ("torn.jsonl", '{"metadata": {}}', "KeyError"),
    ],
)
def test_other_files_are_refused_in_words(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(Misuse, match=words):
        generators.read(path)
