"""Likelihoods of continuations: what the model's own logits say, whatever is asked beside them."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pytest_qwen.engines import decode, scoring  # noqa: E402
from pytest_qwen.engines.base import LoadSpec, Pair  # noqa: E402
from pytest_qwen.engines.fake import FakeEngine  # noqa: E402
from pytest_qwen.errors import EngineFault, Misuse  # noqa: E402

CONFIG = transformers.Qwen2Config(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=256,
    max_position_embeddings=32,
    initializer_range=0.2,
)


@pytest.fixture(scope="module")
def model():
    return decode.build_model(CONFIG, dtype=torch.float32, device="cpu")


def slowly(model, pair: Pair) -> tuple[float, bool]:
    """One token after the other, each from a pass over everything before it."""
    total, greedy, seen = 0.0, True, list(pair.context)
    for token in pair.continuation:
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([seen]), use_cache=False).logits[0, -1].log_softmax(-1)
        total += float(logs[token])
        greedy = greedy and int(logs.argmax()) == token
        seen.append(token)
    return total, greedy


PAIRS = (
    Pair(context=(5, 6, 7), continuation=(9,)),
    Pair(context=(5, 6, 7), continuation=(11,)),
    Pair(context=(5, 6), continuation=(7, 9, 30)),
    Pair(context=(200,), continuation=(3, 4)),
    Pair(context=(5, 6, 7, 9), continuation=(30,)),
)


def test_sums_are_those_of_one_token_after_the_other(model):
    for pair, found in zip(PAIRS, scoring.score(model, PAIRS), strict=True):
        total, greedy = slowly(model, pair)
        assert found.log_probability == pytest.approx(total, abs=1e-4)
        assert found.greedy is greedy


def test_what_greedy_decoding_would_say_is_greedy(model):
    decoder = decode.Decoder(model, decode.PROFILES["eager"], max_len=32)
    said = decoder.run(torch.tensor([[5, 6, 7]]), 4).token_ids[0].tolist()
    other = [(said[0] + 1) % 256, *said[1:]]
    pairs = [Pair(context=(5, 6, 7), continuation=tuple(ids)) for ids in (said, other)]
    assert [one.greedy for one in scoring.score(model, pairs)] == [True, False]


def test_neighbours_change_nothing(model):
    alone = [scoring.score(model, [pair])[0] for pair in PAIRS]
    assert list(scoring.score(model, PAIRS)) == alone
    assert scoring.score(model, []) == ()


def test_more_than_the_model_reads_is_refused(model):
    with pytest.raises(Misuse, match="32 positions"):
        scoring.score(model, [Pair(context=(1,) * 40, continuation=(2,))])


def test_the_fake_engine_holds_certain_what_its_programme_favours():
    engine = FakeEngine()
    with pytest.raises(EngineFault):
        engine.score([])
    engine.load(LoadSpec(engine="fake", model="fake", options=(("favours", " B"),)))
    context = engine.encode("Answer:")
    pairs = [Pair(context=context, continuation=engine.encode(text)) for text in (" A", " B", " C D")]
    assert [one.log_probability for one in engine.score(pairs)] == [-1.0, 0.0, -2.0]
    assert [one.greedy for one in engine.score(pairs)] == [False, True, False]


def test_a_run_ends_when_its_listener_says_so(model):
    heard: list[int] = []

    def listen(token: int) -> bool:
        heard.append(token)
        return len(heard) == 3

    decoder = decode.Decoder(model, decode.PROFILES["eager"], max_len=32)
    assert decoder.run(torch.tensor([[5, 6]]), 9, on_token=listen).token_ids.shape == (1, 3)
