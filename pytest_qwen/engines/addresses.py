"""The address of an endpoint as a user writes it, taken apart and checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from pytest_qwen.errors import Misuse, explain

_PORTS = {"http": 80, "https": 443}
_ROUTES = ("/chat/completions", "/completions", "/models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is. `base` is the path that comes before "/v1", mostly ""."""

    scheme: str
    host: str
    port: int
    base: str = ""

    @property
    def url(self) -> str:
        """The address in one canonical form, with "/v1"; it holds no credentials."""
        return f"{self.scheme}://{self.authority}{self.base}/v1"

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"


def address_of(text: str) -> Address:
    """Take an endpoint's URL apart; "/v1" and a route after it may be there or not.

    Raises Misuse for what is no URL, for other schemes, and for one that carries a password or a query.
    """
    parts, port = _split(text)
    if parts.username is not None or parts.password is not None:
        raise Misuse(
            explain(
                "an endpoint's URL must not carry a user name or password: URLs end up in records",
                found=f"{parts.scheme}://…@{parts.hostname or ''}",
                next_step="put the key into an environment variable: PYTEST_QWEN_API_KEY, or the one that "
                "--qwen-api-key-env names",
            )
        )
    if parts.query or parts.fragment:
        raise Misuse(
            explain(
                "an endpoint's URL must not have a query or a fragment",
                found=f"{parts.scheme}://{parts.hostname}{parts.path}?…",
                next_step="a key goes into an environment variable, extra fields into the option 'body'",
            )
        )
    path = parts.path.rstrip("/")
    for route in _ROUTES:
        path = path.removesuffix(route)
    return Address(
        scheme=parts.scheme,
        host=str(parts.hostname),
        port=port or _PORTS[parts.scheme],
        base=path.removesuffix("/v1"),
    )


def _split(text: str) -> tuple[SplitResult, int | None]:
    """The parts of the URL and its port. Raises Misuse."""
    slip = None
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise Misuse(explain("that is no URL", asked=_shown(text), found=str(error))) from error
    if parts.scheme not in _PORTS:
        slip = "http:// in front of it?" if "://" not in text else None
    elif not parts.hostname:
        slip = "the name of a host is missing"
    elif not any(char.isspace() or not char.isprintable() for char in text.strip()):
        return parts, port
    raise Misuse(
        explain(
            "that is no URL of an endpoint", asked=_shown(text), slip=slip, choices=("http://…", "https://…")
        )
    )


def _shown(text: str) -> str:
    """The text without what may be a password: all that stands before an @."""
    return repr("…@" + text.rpartition("@")[2] if "@" in text else text)
