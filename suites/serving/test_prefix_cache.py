"""A prefix that all prompts share against prompts of their own: what a prefix cache is worth."""

import pytest


def test_shared_against_unique(server, record_property):
    """With a cache the shared part is read once; without one both cost the same. The server says which."""
    tokens = server.scale.prefix_tokens
    asked = {"concurrency": server.scale.prompt_users, "prompt_tokens": tokens + server.scale.prompt_tokens}
    unique = server.level("unique prompts", **asked)
    shared = server.level("shared prefix", shared_prefix_tokens=tokens, **asked)
    assert unique.failed == shared.failed == 0
    cached = [one.cached_tokens for seen in shared.measured.clean_rounds for one in seen.streams]
    if not any(cached):
        seen = f"TTFT {unique.ttft_ms:.1f} ms unique, {shared.ttft_ms:.1f} ms shared"
        pytest.skip(f"the server tells of no cached tokens; {seen}")
    record_property("qwen.prefix_cache", f"{unique.ttft_ms / shared.ttft_ms:.2f} times sooner")
    assert shared.ttft_ms < unique.ttft_ms
