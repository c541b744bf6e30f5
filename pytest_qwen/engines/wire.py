"""Values over the pipe between a session and its engine's process; both ends are ours, so pickle is safe."""

from __future__ import annotations

import pickle
from multiprocessing.connection import Connection
from typing import Any

# Connection.send and recv are not used: they leave a BytesIO with an exported buffer in the traceback of a
# broken pipe, on whose collection CPython 3.12.1 crashes and 3.13.0 warns.


def send(connection: Connection, value: Any) -> None:
    """Raises OSError when the other end is gone, and pickle's errors."""
    connection.send_bytes(pickle.dumps(value))


def receive(connection: Connection) -> Any:
    """Raises EOFError or OSError when the other end is gone."""
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - our own process sent it
