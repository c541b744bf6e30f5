"""What is known of a server's operations, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One field of a body. For an array, `format` and `content_media_type` are those of its items.

    `name` has dots for a field of a field. `described` and `example` say whether it carries a description
    of its own and an example.
    """

    name: str
    type: str = ""
    format: str = ""
    content_media_type: str = ""
    required: bool = False
    described: bool = False
    example: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter outside the body; `where` is "query", "path", "header" or "cookie"."""

    name: str
    where: str
    required: bool = False
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What one media type of a request holds: a value of `type`, with `properties` where it is an object."""

    media_type: str
    type: str = ""
    title: str = ""
    properties: tuple[Property, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. `statuses` are those documented, "default" among them.

    `explained` says whether somebody described it: a summary made of the function's name does not count.
    `success` are the fields of the documented 2xx answer, nested ones too; `success_schema` says whether it
    has a schema that says anything at all.
    """

    method: str
    path: str
    operation_id: str = ""
    summary: str = ""
    description: str = ""
    explained: bool = False
    parameters: tuple[Parameter, ...] = ()
    bodies: tuple[Body, ...] = ()
    statuses: tuple[str, ...] = ()
    success: tuple[Property, ...] = ()
    success_schema: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a document says. `notes` tell what in it was left alone, a line each."""

    title: str = ""
    description: str = ""
    version: str = ""
    operations: tuple[Operation, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReadable:
    """Why a document was not taken."""

    reason: str
