"""Why a connection was not made, or how it ended, in words. Pure."""

from __future__ import annotations

import socket

from pytest_qwen.engines.addresses import Address


def how_cut(size: int, error: Exception | None) -> str:
    """How a connection ended after `size` bytes of an answer; without an error it was closed."""
    how = "reset" if isinstance(error, ConnectionResetError) else "closed"
    if error is not None and how == "closed":
        how = f"lost ({error})"
    if size == 0:
        return f"the connection was {how} before an answer came"
    return f"the connection was {how} in the middle of the answer, after {size} bytes"


# what is found in the error's text or class, and what it means
_CAUSES: tuple[tuple[str, str], ...] = (
    ("certificate_verify_failed", "its certificate is not trusted"),
    ("wrong_version_number", "it does not speak TLS there: is it http:// rather than https://?"),
    ("record layer failure", "it does not speak TLS there: is it http:// rather than https://?"),
)


def why_unreachable(error: OSError, address: Address) -> str:
    """Why there is no connection to that address."""
    where = f"{address.host}:{address.port}"
    text = str(error)
    for mark, words in _CAUSES:
        if mark in text.lower():
            reason = getattr(error, "verify_message", "") or ""
            return f"{where}: {words}" + (f" ({reason})" if reason else "")
    if isinstance(error, socket.gaierror):
        return f"{where}: no such host ({error.strerror})"
    if address.tls and isinstance(error, ConnectionResetError):
        return f"{where}: the connection was reset in the TLS handshake: is it http:// rather than https://?"
    if isinstance(error, ConnectionRefusedError):
        return f"{where}: nothing listens there (connection refused)"
    return f"{where}: no connection ({text or type(error).__name__})"
