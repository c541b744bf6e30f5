"""Prompts from 512 to 8,192 tokens at a fixed number of users: what the prefill costs everybody."""


def test_prompt_lengths(server, law):
    """Every prompt token is work before the first token of the answer."""
    users = server.scale.prompt_users
    levels = [
        (tokens, server.level(f"{users} users, {tokens} tokens", concurrency=users, prompt_tokens=tokens))
        for tokens in server.scale.prompts
    ]
    assert not [level.what for _, level in levels if level.failed]
    first, last = levels[0][1], levels[-1][1]
    assert last.ttft_ms > first.ttft_ms
    if len(levels) > 2:
        points = [({"prompt": tokens}, level.ttft_ms) for tokens, level in levels]
        law(f"time to first token, {users} users, {server.engine}", points, ("1", "prompt"), unit="ms")
