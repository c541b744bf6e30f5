"""The command `plan`: rows, JSON, recommendation, prices, and one message for each kind of bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_qwen import cli
from pytest_qwen.data import find_config
from pytest_qwen.gpus import CATALOGUE
from pytest_qwen.optimization import optimization
from pytest_qwen.published import load_documents

MODEL = "Qwen/Qwen2.5-Coder-7B-Instruct"


def ask(capsys, *words):
    """Exit code, output and error of one command."""
    code = cli.main(["plan", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def rows_of(capsys, *words):
    code, out, err = ask(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["rows"]


def test_a_row_for_each_card_and_precision(capsys):
    code, out, _ = ask(capsys, MODEL, "--gpu", "l4,h100", "--quantization", "int4,bf16")
    assert code == 0
    title, head, *rows = out.splitlines()
    assert title == f"{MODEL}: 1 x 2048 tokens (128 of them the answer)"
    assert head.split("  ")[0] == "card"
    assert [" ".join(row.split()[:3]).split(" ")[0] for row in rows] == ["L4", "L4", "H100", "H100"]
    assert [word for row in rows for word in row.split() if word in ("int4", "bfloat16")] == [
        "int4", "bfloat16", "int4", "bfloat16",
    ]  # fmt: skip


def test_json_has_every_figure_and_the_arithmetic_adds_up(capsys):
    (row,) = rows_of(capsys, MODEL, "--gpu=l4", "--quantization=none", "--batch=4", "--context=4096")
    assert (row["model"], row["cards"], row["precision"], row["outlook"]) == (
        MODEL,
        "L4",
        "bfloat16",
        "feasible",
    )
    assert sum(row["memory_lines_bytes"].values()) == pytest.approx(row["memory_needed_bytes"])
    assert row["memory_available_bytes"] == 24e9
    assert row["largest_batch"] >= 4
    assert row["longest_context_tokens"] >= 4096
    assert row["system_tokens_per_sec"] == pytest.approx(4 * row["tokens_per_sec"])
    assert row["usd_per_mtok"] == pytest.approx(0.75 / row["system_tokens_per_sec"] / 3600 * 1e6)
    assert row["usd_per_mtok_at_largest_batch"] < row["usd_per_mtok"]


def test_explain_adds_memory_arithmetic_and_break_even(capsys):
    _, out, _ = ask(capsys, MODEL, "--gpu=l4", "--quantization=bf16", "--explain")
    assert "15.23 GB: weights (bfloat16)" in out
    assert "ceiling: 7.07 B weights" in out
    assert "cost: 540 USD a month" in out
    assert "cheaper than GPT-4o (5.00 USD/Mtok at 2:1) from 108 Mtok a month" in out
    assert "cheaper than GitHub Copilot Business (19 USD a month) from 29 users" in out


def test_more_tokens_than_a_card_can_make_are_called_so(capsys):
    _, out, _ = ask(
        capsys, "Qwen/Qwen2.5-Coder-32B-Instruct", "--gpu=l4", "--quantization=int4", "--explain", "--price=5"
    )
    assert "from 720 Mtok a month, more than it can do" in out


def test_a_mixture_of_experts_reads_only_its_active_weights(capsys):
    (dense,) = rows_of(capsys, "Qwen/Qwen3-32B", "--gpu=h100", "--quantization=int4")
    (sparse,) = rows_of(capsys, "Qwen/Qwen3-30B-A3B", "--gpu=h100", "--quantization=int4")
    assert sparse["tokens_per_sec"] > 5 * dense["tokens_per_sec"]
    assert sparse["memory_needed_bytes"] == pytest.approx(dense["memory_needed_bytes"], rel=0.2)


def test_several_cards_share_weights_and_their_price(capsys):
    model = "meta-llama/Llama-3.3-70B-Instruct"
    (one,) = rows_of(capsys, model, "--gpu=h100-nvl", "--quantization=bf16")
    (two,) = rows_of(capsys, model, "--gpu=h100-nvl", "--quantization=bf16", "--count=2")
    assert (one["outlook"], two["cards"]) == ("impossible", "2 x H100 NVL")
    assert two["outlook"] in ("feasible", "tight")
    assert two["usd_per_hour"] == 9.0


def test_the_cards_own_dtype_and_one_that_is_asked_for(capsys):
    assert [row["dtype"] for row in rows_of(capsys, MODEL, "--gpu=t4,l4", "--quantization=none")] == [
        "float16",
        "bfloat16",
    ]
    (row,) = rows_of(capsys, MODEL, "--gpu=l4", "--quantization=int4", "--dtype=float16", "--kv-cache=fp8")
    assert (row["dtype"], row["precision"], row["kv_cache"]) == ("float16", "int4", "fp8")


def test_without_cards_every_card_is_planned(capsys):
    assert len(rows_of(capsys, MODEL, "--quantization=int4")) == len(CATALOGUE)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_configuration_of_ones_own(tmp_path, capsys, form):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(find_config(MODEL)))
    mine = rows_of(capsys, str(tmp_path if form == "folder" else path), "--gpu=l4")
    shipped = rows_of(capsys, MODEL, "--gpu=l4")
    assert [{**row, "model": ""} for row in mine] == [{**row, "model": ""} for row in shipped]


def test_without_a_model_what_fits_is_recommended(capsys):
    code, out, _ = ask(capsys, "--gpu=l4,rtx3070")
    assert code == 0
    l4, small = out.split("NVIDIA GeForce RTX 3070")
    assert "Qwen/Qwen2.5-Coder-32B-Instruct" in l4
    assert "32B" not in small
    assert "embedded/" not in out
    _, out, _ = ask(capsys, "--gpu=l4", "--json")
    sizes = [row["memory_lines_bytes"] for row in json.loads(out)["recommended"]["l4"]]
    assert sizes


def test_where_nothing_fits_it_is_said(capsys):
    _, out, _ = ask(capsys, "--gpu=rtx3070", "--batch=5000")
    assert "none of them fits" in out


def test_prices_of_a_file_and_of_the_line(tmp_path, capsys):
    mine = tmp_path / "mine.toml"
    mine.write_text("[cards.l4]\nusd_per_hour = 0.5\n[cards.h100]\nusd_per_hour = 2\n")
    prices = [
        row["usd_per_hour"]
        for row in rows_of(capsys, MODEL, "--gpu=l4,h100,t4", "--quantization=int4", f"--prices={mine}")
    ]
    assert prices == [0.5, 2.0, 0.5]
    (row,) = rows_of(capsys, MODEL, "--gpu=l4", "--quantization=int4", "--price=1.25", f"--prices={mine}")
    assert row["usd_per_hour"] == 1.25


CONFIG = dict(find_config(MODEL) or {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Qwen/Qwen3-8"], "did you mean 'Qwen/Qwen3-8B'?"),
        (["/nowhere/config.json"], "no configuration of '/nowhere/config.json' at hand"),
        ([MODEL, "--gpu=l5"], "there is no GPU 'l5' in the catalogue"),
        ([MODEL, "--gpu=cpu"], "a CPU cannot be planned for"),
        ([MODEL, "--gpu=l4,,h100"], "an empty name"),
        ([MODEL, "--quantization=int5"], "quantization 'int5' is not known"),
        ([MODEL, "--kv-cache=int3"], "KV cache type 'int3' is not known"),
        ([MODEL, "--dtype=bf17"], "'bf17' is no dtype"),
        ([MODEL, "--price=0"], "--price: 0.0 is not a price above 0"),
        ([MODEL, "--price=-2"], "--price: -2.0 is not a price above 0"),
        ([MODEL, "--price=nan"], "--price: nan is not a price above 0"),
        ([MODEL, "--prices=/nowhere.toml"], "the price file /nowhere.toml cannot be read"),
        ([MODEL, "--context=40000"], "40000 tokens is beyond the 32768"),
        ([MODEL, "--context=100", "--output=100"], "leaves no room for a prompt"),
        ([MODEL, "--count=3"], "3 cards cannot share 28 heads and 4 KV heads evenly"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(capsys, words, said):
    code, out, err = ask(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("pytest-qwen: ")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "is not a JSON object"),
        (json.dumps({k: v for k, v in CONFIG.items() if k != "vocab_size"}), "does not say vocab_size"),
        (json.dumps({**CONFIG, "num_key_value_heads": 5}), "cannot share 5 KV heads evenly"),
        (json.dumps({"model_type": "x", "kv_lora_rank": 512}), "its attention is not the common kind"),
    ],
)
def test_a_wrong_configuration_is_one_message(tmp_path, capsys, content, said):
    (tmp_path / "config.json").write_text(content)
    code, out, err = ask(capsys, str(tmp_path))
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("option", ["--context=0", "--batch=-1", "--count=x", "--output=1.5"])
def test_a_count_that_is_none_is_usage(option, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["plan", MODEL, option])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    name, _, value = option.partition("=")
    assert f"{name}: {value} is not a whole number above 0" in said


def test_an_empty_list_of_precisions_is_the_default(capsys):
    assert ask(capsys, MODEL, "--gpu=l4", "--quantization=") == ask(capsys, MODEL, "--gpu=l4")


def test_planning_imports_neither_pytest_nor_torch():
    code = f"import sys, pytest_qwen.cli as c; c.main(['plan', {MODEL!r}]); print({{'pytest','torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


# ---- what the page shows is what is computed

PAGE = (Path(__file__).parents[1] / "docs" / "planning.md").read_text("utf-8")


def test_the_example_of_the_page_is_what_the_command_prints(capsys):
    (words,) = re.findall(r"`pytest-qwen plan (\S+ .*?)` gives a row", PAGE)
    _, out, _ = ask(capsys, *words.split())
    assert out.strip() in PAGE, (
        f"docs/planning.md: the output of pytest-qwen plan {words} has changed to\n{out}"
    )


@pytest.mark.parametrize("row", load_documents()["h100-report"][0].rows, ids=lambda row: row.name)
def test_the_pages_h100_table_is_what_is_computed(row):
    found = optimization(row)
    which, model = row.name.split(" ", 1)
    begins = f'| "{which}" {model.replace("Qwen-3 ", "Qwen3-")} '
    (line,) = [line for line in PAGE.splitlines() if line.startswith(begins)]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    sizes = (found.weights_gb, found.kv_cache_gb, found.activations_gb, found.total_gb)
    assert cells[1:5] == [f"{size:.1f} GB" for size in sizes]
    assert float(cells[5].removesuffix(" %")) == pytest.approx(found.memory_percent, abs=0.51)
    assert cells[6] == f"{row['utilization_percent']['memory']} %"
    assert cells[7] in (f"{found.batch} sequences", f"all {found.batch}")
    assert cells[8] == f"{found.longest_context:,} tokens"
    assert cells[9] == f"{found.tokens_per_sec:.0f} tok/s"
