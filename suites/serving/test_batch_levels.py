"""From 1 to 100 requests at once: how the rate of the whole and the time of a token grow, as fitted laws."""


def test_batches(server, law):
    """A step costs a constant (the weights are read once) and a little for each sequence in it."""
    levels = server.most_users(server.scale.batches)
    assert not [level.what for _, level in levels if level.failed]
    steps = [({"users": count}, level.tpot_ms) for count, level in levels]
    time = law(f"time of a token under load, {server.engine}", steps, ("1", "users"), unit="ms")
    rates = [({"users": count}, level.system_tokens_per_sec) for count, level in levels]
    rate = law.power(f"output of all users, {server.engine}", rates, "users", unit="tok/s")
    # together they get more than one alone, but never more than so many times as much
    assert 0 < rate.coefficient("users") < 1.1
    assert time.at(users=1) < time.at(users=levels[-1][0]) * 1.1
