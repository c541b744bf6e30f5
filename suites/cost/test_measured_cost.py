"""What a million tokens really costs on the card of this run, from measured rounds, beside an API's price."""

import pytest

from pytest_qwen import cost, gpu, max_usd_per_mtok, model, workload
from pytest_qwen.data import load_prices
from pytest_qwen.statistics import percentile

CODER = "Qwen/Qwen2.5-Coder-7B-Instruct"
TINY = "embedded/qwen2-tiny"
# The published table rents an H100 at this price, and pays 23.50 USD for a million of these tokens. Eager
# decoding depends on the host's processor: the limit leaves room for a slower one.
USD_PER_HOUR, MOST_USD_PER_MTOK = 4.50, 30
CPU_USD_PER_HOUR = 0.10  # no price list has this machine: it scales the figures and decides nothing


def usd(measured):
    """The median USD/Mtok of the clean rounds; without one there is nothing to reckon with."""
    if not measured.clean_rounds:
        pytest.skip("no clean round: " + "; ".join(map(str, measured.rounds[-1].violations)))
    return percentile(measured.values("usd_per_mtok"), 0.5)


def compared(measured, price, record_property):
    """USD/Mtok of prompt and output together, and what it takes to be cheaper than each shipped API price."""
    rounds = measured.clean_rounds
    rates = [
        r.batch_size * (r.prompt_tokens + r.output_tokens) / (r.metrics["e2e_latency_ms"] / 1000)
        for r in rounds
    ]
    rate, batch = percentile(rates, 0.5), rounds[0].batch_size
    ours = cost.usd_per_mtok(price, rate)
    record_property(
        f"USD per Mtok, prompt and output, batch {batch}", f"{ours:.4g} at {rate:.4g} tok/s, {price} USD/h"
    )
    month = price * cost.HOURS_A_MONTH
    for name, api in load_prices().apis.items():
        theirs = cost.blended_usd_per_mtok(
            api.input_usd_per_mtok,
            api.output_usd_per_mtok,
            inputs_per_output=rounds[0].prompt_tokens / rounds[0].output_tokens,
        )
        needed, able = cost.break_even_mtok(month, theirs), cost.mtok_a_month(rate)
        wins = f"cheaper from {needed:.4g} Mtok a month" if needed <= able else "never cheaper at this batch"
        record_property(
            f"{name}, batch {batch}", f"{theirs:.2f} USD/Mtok; {wins} ({able:.4g} Mtok can be made)"
        )
    return ours


def check_formula(measured, price):
    """The judged metric is the price over the rate of the output tokens, round by round."""
    for seen in measured.clean_rounds:
        rate = seen.metrics["output_tokens_per_sec"]
        assert seen.metrics["usd_per_mtok"] == pytest.approx(cost.usd_per_mtok(price, rate))


@gpu("h100", "h200", "b200")
@model(CODER, weights="dummy", optimize="eager", max_model_len=256)
@workload(prompt_tokens=128, output_tokens=64)
@max_usd_per_mtok(MOST_USD_PER_MTOK, price_per_hour=USD_PER_HOUR)
def test_cost_of_7b(llm, published, record_property):
    """One sequence at a time, as it was published; a batch of 32 makes the same tokens far cheaper."""
    batch = llm.measure(batch_size=32)
    one = llm.measure()  # the last measurement is the one that the bound is judged on
    check_formula(one, USD_PER_HOUR)
    alone, together = usd(one), usd(batch)
    published("gpu-comparison", "cost per million tokens", "7B on H100", usd_per_mtok=alone)
    compared(one, USD_PER_HOUR, record_property)
    record_property("USD per Mtok of output, batch 1 and 32", f"{alone:.4g}, {together:.4g}")
    assert together < alone / 8
    compared(batch, USD_PER_HOUR, record_property)


@gpu("cpu")
@model(TINY, max_model_len=256)
@workload(prompt_tokens=32, output_tokens=16)
@max_usd_per_mtok(100, price_per_hour=CPU_USD_PER_HOUR)
def test_cost_of_the_embedded_model(llm, record_property):
    """The same path without a GPU."""
    batch = llm.measure(batch_size=8)
    one = llm.measure()
    check_formula(one, CPU_USD_PER_HOUR)
    alone, together = usd(one), usd(batch)
    assert together < alone
    both = compared(batch, CPU_USD_PER_HOUR, record_property)
    assert both < together  # the prompt's tokens count as well
