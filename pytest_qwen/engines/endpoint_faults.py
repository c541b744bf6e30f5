"""Whose fault a failed request is, and the words for it; the key never gets into them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_qwen.errors import EngineFault, Misuse, ModelUnusable, QwenError, Unavailable, explain
from pytest_qwen.streams import State

_UNKNOWN_MODEL = re.compile(
    r"model\b.{0,200}(not exist|not found|unknown|no such|not available|not supported|not loaded)"
    r"|(not find|unknown|no such|invalid) model",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Contact:
    """Who is asked, under which name the key is known, and what the server said it has."""

    url: str
    key_env: str
    key: str = ""
    model: str = ""
    models: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """The text without the key, should a server have repeated it."""
        return text.replace(self.key, "***") if len(self.key) >= 4 else text


def fault(contact: Contact, state: State, detail: str, status: int = 0) -> QwenError:
    """The error that a failed request is, by its state, our words for it and its HTTP status."""
    detail = contact.hide(detail)
    if state == "unreachable":
        return _unreachable(contact, detail)
    if state == "http-error" and status in (401, 403):
        return _refused_key(contact, detail)
    if state == "http-error" and _UNKNOWN_MODEL.search(detail):
        return unknown_model(contact, detail)
    headline = _HEADLINES.get(state, "the endpoint failed")
    if state == "http-error":
        headline = _of_status(status)
    return EngineFault(
        explain(headline, asked=contact.url, found=detail, next_step=_NEXT.get(state)), "error"
    )


def wrong_url(contact: Contact, detail: str) -> QwenError:
    """Something answers, but not an API of this kind."""
    return Misuse(
        explain(
            "no OpenAI-compatible API answers at this URL",
            asked=contact.url,
            found=contact.hide(detail),
            slip="another path or port; the part before /v1 matters, /v1 itself may be left out",
        )
    )


def unknown_model(contact: Contact, detail: str = "") -> QwenError:
    """The server does not have the model that was asked for."""
    return ModelUnusable(
        explain(
            "the endpoint does not have this model",
            asked=contact.model,
            found=contact.hide(detail) or f"{contact.url} lists {len(contact.models)} other(s)",
            choices=contact.models or None,
        )
    )


def which_model(contact: Contact) -> QwenError:
    """No model was named, and the server has several, or none."""
    found = (
        f"{contact.url} lists {len(contact.models)} models" if contact.models else f"{contact.url} lists none"
    )
    return Misuse(
        explain(
            "the test names no model, and the endpoint does not have exactly one",
            found=found,
            next_step='add @model("…"), or give --qwen-model=ID',
            choices=contact.models or None,
        )
    )


def _unreachable(contact: Contact, detail: str) -> QwenError:
    next_step = f"see that the server runs and listens there: curl {contact.url}/models"
    if "certificate" in detail:
        next_step = "SSL_CERT_FILE=FILE names the authority that signed it; checks are never switched off"
    return Unavailable(
        explain("the endpoint cannot be reached", asked=contact.url, found=detail, next_step=next_step)
    )


def _refused_key(contact: Contact, detail: str) -> QwenError:
    given = f"the environment variable {contact.key_env} holds one" if contact.key else "no key was sent"
    what = "the endpoint refuses the API key" if contact.key else "the endpoint wants an API key"
    return Misuse(
        explain(
            what,
            asked=contact.url,
            found=f"{detail}; {given}",
            next_step=f"export {contact.key_env}=…, or name another variable with --qwen-api-key-env",
        )
    )


def _of_status(status: int) -> str:
    if status == 429:
        return "the endpoint refuses requests: too many of them"
    if status >= 500:
        return "the endpoint failed"
    return (
        "the endpoint refused the request" if status not in (0, 200) else "the endpoint failed in mid-answer"
    )


_HEADLINES: dict[State, str] = {
    "cut": "the endpoint's answer was cut off",
    "silent": "the endpoint went silent",
    "malformed": "the endpoint's answer is not a stream of an OpenAI-compatible API",
}
_NEXT: dict[State, str] = {
    "silent": "look into the server's log; the limit is silence_s of @workload",
    "cut": "look into the server's log, and that of any proxy before it",
}
