"""Time to the first token as requests come in at shares of what the server can do: an open loop."""


def test_shares_of_the_capacity(server):
    """Requests come at random times, whatever the server does; latency counts from when each was due."""
    capacity = max(level.requests_per_sec for _, level in server.most_users(server.scale.batches))
    levels = []
    for share in server.scale.shares:
        what = f"{share:.0%} of {capacity:.2f} req/s"
        levels.append(server.level(what, request_rate=share * capacity, requests_per_round=20))
    assert not [level.what for level in levels if level.failed]
    # below its capacity a server keeps up: as many answers end as requests come
    for share, level in zip(server.scale.shares, levels, strict=True):
        assert level.requests_per_sec > 0.8 * share * capacity, str(level)
