"""Programs of code tasks in real containers: what passes, what fails, what only pretends."""

import pytest

from pytest_qwen.accuracy import run_program

TESTS = "assert add(2, 3) == 5"


@pytest.mark.parametrize(
    ("program", "passed"),
    [
        (f"def add(a, b):\n    return a + b\n{TESTS}", True),
        (f"def add(a, b):\n    return a - b\n{TESTS}", False),
        (f"def add(a, b): return\nimport os\nos._exit(0)\n{TESTS}", False),
        (f"raise SystemExit(0)\n{TESTS}", False),
        ("def add(a, b:\n", False),
    ],
)
def test_only_a_program_that_passes_its_tests_has_passed(sandbox, program, passed):
    assert run_program(sandbox, program) is passed
