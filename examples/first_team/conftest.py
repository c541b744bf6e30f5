"""With --qwen-baseline, what is promised to users must also not become slower than it was."""

import pytest

from pytest_qwen import max_slowdown


def pytest_itemcollected(item: pytest.Item) -> None:
    """A tenth slower than the baseline fails; without a baseline there is nothing to compare with."""
    if item.config.getoption("qwen_baseline") and item.name.startswith("test_interactive"):
        item.add_marker(max_slowdown(1.1, vs="baseline"))
