"""The requests sent to a generated image server: good, bad and large input, for each way of upload."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from pytest_qwen.battery import Battery
from pytest_qwen.exchanges import Call
from pytest_qwen.openapi import Predict
from pytest_qwen.probing import Body, multipart

LARGE_BYTES = 25 << 20
ASKABLE = ("multipart", "form-list", "raw", "json-base64")
_MIME = {"jpeg": "image/jpeg", "webp": "image/webp", "exif": "image/jpeg"}
_TEXT = b"This is a text file and no image.\n" * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What is sent: `pairs` are good.0, good.1, hidden.0, hidden.1 as PNG; the battery has the rest."""

    pairs: Mapping[str, bytes]
    battery: Battery


class Caller:
    """Makes the calls of one server, in the way that its predict operation takes images."""

    def __init__(self, predict: Predict, images: Images) -> None:
        self.predict = predict
        self.images = images

    def image(self, name: str, data: bytes, content_type: str = "image/png") -> Call:
        """A valid image, sent as the operation asks."""
        suffix = content_type.partition("/")[2]
        how = self.predict.how
        if how == "raw":
            return self._call(name, [("Content-Type", content_type)], data)
        if how == "json-base64":
            return self._json(name, self._text(data))
        return self._form(name, filename=f"photo.{suffix}", content_type=content_type, data=data)

    def good(self, name: str, image: str, *, deadline_s: float = 10.0) -> Call:
        """One of the labelled images."""
        return replace(self.image(name, self.images.pairs[image]), deadline_s=deadline_s)

    def unseen(self, name: str, image: str, *, deadline_s: float) -> Call:
        """The same picture in bytes that were not sent before, so that no answer can come from a cache."""
        data = self.images.pairs[image] + name.encode()  # decoders stop at the end of the picture
        return replace(self.image(name, data), deadline_s=deadline_s)

    def labelled(self) -> list[Call]:
        """Both pairs, then the first image once more."""
        names = ("good.0", "good.1", "hidden.0", "hidden.1")
        return [*(self.good(name, name) for name in names), self.good("again", "good.0")]

    def kinds(self) -> list[Call]:
        """Every kind of valid image."""
        kinds = self.images.battery.kinds
        return [
            self.image(f"kind.{kind}", data, _MIME.get(kind, "image/png")) for kind, data in kinds.items()
        ]

    def parallel(self, count: int) -> list[Call]:
        """The first pair in turn, all at once."""
        return [self.good(f"parallel.{i}", f"good.{i % 2}", deadline_s=20.0) for i in range(count)]

    def bad(self) -> list[Call]:
        """Bad input of every kind that this way of upload knows."""
        truncated = self.images.battery.truncated
        if self.predict.how == "raw":
            return [
                self._call("bad.text", [("Content-Type", "text/plain")], _TEXT),
                self._call("bad.truncated", [("Content-Type", "image/png")], truncated),
                self._call("bad.zero", [("Content-Type", "image/png")], b""),
                self._call("bad.type", [("Content-Type", "application/json")], b"{}"),
            ]
        if self.predict.how == "json-base64":
            return self._bad_json(truncated)
        return self._bad_forms(truncated)

    def large(self) -> Call:
        """25 MiB: a valid image followed by zeros."""
        image = self.images.pairs["good.0"]
        if self.predict.how == "json-base64":
            return self._json("large", self._text(image + b"\0" * (LARGE_BYTES * 3 // 4)))
        if self.predict.how == "raw":
            return replace(
                self._call("large", [("Content-Type", "image/png")], b""),
                body=(image, LARGE_BYTES - len(image)),
            )
        return self._form(
            "large", filename="large.png", content_type="image/png", data=(image, LARGE_BYTES - len(image))
        )

    def bomb(self) -> Call:
        """A picture of more than 180 megapixels in a few kilobytes."""
        return self.image("bomb", self.images.battery.bomb)

    @property
    def _field(self) -> str:
        return self.predict.field or "file"

    def _bad_forms(self, truncated: bytes) -> list[Call]:
        image = self.images.pairs["good.0"]
        form = self._form
        return [
            form("bad.text", filename="note.txt", content_type="text/plain", data=_TEXT),
            form("bad.truncated", filename="photo.png", content_type="image/png", data=truncated),
            form("bad.zero", filename="photo.png", content_type="image/png", data=b""),
            self._call("bad.empty", [], b""),
            form("bad.missing", filename=None, content_type=None, data=b"yes", field="other"),
            form(
                "bad.field", filename="photo.png", content_type="image/png", data=image, field="wrong_field"
            ),
            self._call("bad.type", [_JSON], b'{"image": "none"}'),
            form("bad.nofilename", filename=None, content_type="image/png", data=image),
            form("odd.nopart", filename="photo.png", content_type=None, data=image),
        ]

    def _bad_json(self, truncated: bytes) -> list[Call]:
        encoded = base64.b64encode(self.images.pairs["good.0"]).decode()
        return [
            self._json("bad.text", self._text(_TEXT)),
            self._json("bad.truncated", self._text(truncated)),
            self._json("bad.zero", self._text(b"")),
            self._call("bad.empty", [_JSON], b""),
            self._json("bad.missing", {}),
            self._json("bad.field", {"wrong_field": encoded}),
            self._call("bad.type", [("Content-Type", "text/plain")], _TEXT),
            self._json("bad.notbase64", self._text("%%% not base64 %%%")),
        ]

    def _form(
        self,
        name: str,
        *,
        filename: str | None,
        content_type: str | None,
        data: bytes | Body,
        field: str | None = None,
    ) -> Call:
        fields = {one.name: _example(one.type) for one in self.predict.others}
        headers, body = multipart(field or self._field, filename, content_type, data, fields=fields)
        return replace(self._call(name, headers, b""), body=body)

    def _text(self, data: bytes | str) -> object:
        """The JSON body with an image as base64, or with a text that is none."""
        text = data if isinstance(data, str) else base64.b64encode(data).decode()
        if self.predict.field is None:
            return text
        others = {one.name: _example(one.type) for one in self.predict.others}
        return {**others, self.predict.field: [text] if self.predict.many else text}

    def _json(self, name: str, value: object) -> Call:
        return self._call(name, [_JSON], json.dumps(value).encode())

    def _call(self, name: str, headers: Sequence[tuple[str, str]], body: bytes) -> Call:
        pieces = (body,) if body else ()
        return Call(
            name=name,
            method=self.predict.operation.method,
            path=_path(self.predict),
            headers=(("Accept", "application/json"), *headers),
            body=pieces,
        )


def _path(predict: Predict) -> str:
    """The operation's path, with an example for every parameter that it requires."""
    path = predict.operation.path
    for one in predict.parameters:
        if one.where == "path":
            path = path.replace(f"{{{one.name}}}", _example(one.type))
    query = {one.name: _example(one.type) for one in predict.parameters if one.where == "query"}
    return f"{path}?{urlencode(query)}" if query else path


def _example(kind: str) -> str:
    """A value that any field of that type takes."""
    return {"integer": "1", "number": "0.5", "boolean": "true"}.get(kind, "example")


_JSON = ("Content-Type", "application/json")


def health_call(name: str, path: str, delay_s: float = 0.0) -> Call:
    """A question for the server's health."""
    return Call(name=name, method="GET", path=path, delay_s=delay_s)


def shuffled(calls: Sequence[Call], seed: int) -> list[Call]:
    """The calls in an order that a program cannot know, the same for the same seed."""
    mixed = list(calls)
    random.Random(seed).shuffle(mixed)  # noqa: S311 - an order, not a secret
    return mixed
