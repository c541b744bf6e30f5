"""A server that streams answers of which everything is known: when it sent what, and what it broke."""

from pytest_qwen.mock_server.process import MockServer, Served, read_log
from pytest_qwen.mock_server.script import ServerScript

__all__ = ["MockServer", "Served", "ServerScript", "read_log"]
