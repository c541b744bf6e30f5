"""The examples do what they say: planned, run on the fake engine, and as a workflow that parses."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_qwen.mock_server import MockServer

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PRETEND = "from pytest_qwen.testing import pretend_gpus\npretend_gpus('l4')\n"


def run(*arguments: str, folder: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run pytest as a user does, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    paths = os.pathsep.join(filter(None, (path, str(ROOT), os.environ.get("PYTHONPATH", ""))))
    environ = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def laptop(tmp_path) -> str:
    """A folder with a plugin that makes this machine find an L4; to be on the path."""
    (tmp_path / "pretend_l4.py").write_text(PRETEND)
    return str(tmp_path)


def run_first_team(*arguments: str, laptop: str) -> subprocess.CompletedProcess[str]:
    fake = ("-p", "pretend_l4", "--qwen-engine=fake", "--gpu=l4")
    return run(*fake, *arguments, folder=EXAMPLES / "first_team", path=laptop)


def outlooks(output: str) -> dict[str, str]:
    """Test name → outlook, from the lines of a plan."""
    words = (line.split(maxsplit=2) for line in output.splitlines() if "::" in line)
    return {parts[1].split("::")[1].rstrip(":"): parts[0] for parts in words}


def test_the_promises_are_possible_on_the_l4_in_int4_only():
    done = run("test_sla.py", "--qwen-plan", "--gpu=l4", folder=EXAMPLES / "first_team")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outlooks(done.stdout) == {
        "test_interactive[int4]": "feasible",
        "test_first_token[int4]": "feasible",
        "test_cost": "feasible",
        "test_optimised_is_no_slower": "feasible",
    }
    assert "2 more want another GPU" in done.stdout


def test_unquantised_on_the_l4_is_refused_with_the_arithmetic():
    done = run("test_what_if.py", "--qwen-plan", "--gpu=l4", folder=EXAMPLES / "first_team")
    assert done.returncode == 1
    assert outlooks(done.stdout) == {"test_unquantised": "impossible"}
    assert "14.1 GB a token; L4 moves 300 GB/s; at most 21.2 tok/s" in done.stdout


def test_everything_is_possible_on_an_h100():
    done = run("--qwen-plan", "--gpu=h100", folder=EXAMPLES / "first_team")
    assert done.returncode == 0, done.stdout + done.stderr
    found = outlooks(done.stdout)
    assert set(found.values()) == {"feasible"}
    assert {"test_interactive[bf16]", "test_unquantised"} <= found.keys()


def test_the_team_passes_then_compares_with_its_own_report(laptop, tmp_path):
    first = run_first_team("test_sla.py", f"--qwen-report={tmp_path / 'main'}", laptop=laptop)
    assert first.returncode == 0, first.stdout
    assert "4 passed, 2 skipped" in first.stdout
    assert "max_slowdown vs baseline" not in first.stdout
    again = run_first_team("test_sla.py", f"--qwen-baseline={tmp_path / 'main'}", laptop=laptop)
    assert again.returncode == 0, again.stdout
    assert "4 passed, 2 skipped" in again.stdout
    assert "max_slowdown vs baseline" in again.stdout


@pytest.mark.slow
def test_the_tests_of_the_sla_tests_pass():
    done = run(folder=EXAMPLES / "without_a_gpu")
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout


def test_the_laptop_runs_the_promises_as_its_readme_says():
    text = (EXAMPLES / "without_a_gpu" / "README.md").read_text(encoding="utf-8")
    command = next(line for line in text.splitlines() if line.startswith("python -m pytest ../first_team"))
    done = run(*shlex.split(command)[3:], folder=EXAMPLES / "without_a_gpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed, 2 skipped" in done.stdout


def test_the_workflow_plans_without_a_gpu_then_gates_on_one():
    workflow = yaml.safe_load((EXAMPLES / "ci" / "gpu-runner.yml").read_text(encoding="utf-8"))
    plan, gate = workflow["jobs"]["plan"], workflow["jobs"]["gate"]
    assert gate["needs"] == "plan"
    assert "self-hosted" in gate["runs-on"]
    planned = " ".join(step.get("run", "") for step in plan["steps"])
    assert "--qwen-plan --gpu=l4" in planned
    gated = " ".join(step.get("run", "") for step in gate["steps"])
    for option in ("--gpu=l4", "--junitxml=", "--qwen-report=", "--qwen-baseline="):
        assert option in gated
    uploads = [step for step in gate["steps"] if step.get("uses", "").startswith("actions/upload-artifact")]
    assert {step["with"]["name"] for step in uploads} == {"qwen-report", "junit"}
    assert all(step["if"] == "always()" for step in uploads)


# ---- the gate in front of an endpoint, against the mock server

ANSWER = "def reverse(text): return text[::-1]"


def run_gate(*arguments: str, **script: object) -> subprocess.CompletedProcess[str]:
    """The endpoint gate against a mock server of this script."""
    with MockServer(**{"ttft_ms": 30.0, "gap_ms": 2.0, "text": ANSWER, **script}) as server:
        return run(f"--qwen-endpoint={server.url}", *arguments, folder=EXAMPLES / "endpoint_gate")


@pytest.mark.slow
def test_the_endpoint_gate_passes_where_the_promises_are_kept():
    done = run_gate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    assert " 0 FAIL, 0 NO VERDICT" in done.stdout


@pytest.mark.slow
def test_the_endpoint_gate_fails_when_one_request_in_ten_does():
    done = run_gate("-k", "sixteen", fault="status", fault_share=0.1, spared=20)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL max_error_rate" in done.stdout
    assert "http-error (HTTP 500" in done.stdout


def test_the_workflow_of_the_endpoint_gate_gives_the_name_of_the_key_alone():
    workflow = yaml.safe_load((EXAMPLES / "ci" / "endpoint-gate.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["gate"]["steps"]
    (gate,) = (step for step in steps if step.get("name") == "Measure and judge")
    for option in ("--qwen-endpoint=", "--qwen-api-key-env=CHAT_API_KEY", "--junitxml=", "--qwen-report="):
        assert option in gate["run"]
    assert "secrets." not in gate["run"]
    assert gate["env"]["CHAT_API_KEY"] == "${{ secrets.CHAT_API_KEY }}"
