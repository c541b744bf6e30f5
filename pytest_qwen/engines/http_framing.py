"""HTTP/1.1 answers taken apart as they come: status, headers, and a body of any framing. Pure."""

from __future__ import annotations

import re

HEAD_LIMIT = 65_536  # bytes of status line and headers; servers and proxies refuse far less themselves
LINE_LIMIT = 8_192  # bytes of the line with a chunk's size, or of the trailers
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: .*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")


class NotHttp(Exception):
    """What came is not an HTTP/1.1 answer; the text says what is wrong with it."""


class Framer:
    """Reads one answer (RFC 9112). `body` gets a pair of time and bytes for each piece, in order.

    `complete` says that the answer ended, `headers` has lower-case names, `keep_alive` whether another
    request may follow on the connection, `head` whether status and headers were read, `chunked` whether the
    end is marked by an empty chunk.
    """

    __slots__ = ("_crlf", "_left", "_mode", "_pending", "body", "complete", "headers", "keep_alive", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.keep_alive = False
        self.complete = False
        self.body: list[tuple[int, bytes]] = []
        self._mode = "head"
        self._pending = b""
        self._left = 0  # bytes of the body, or of the present chunk, that are still to come
        self._crlf = False  # a chunk's bytes came, the end of its line did not yet

    @property
    def head(self) -> bool:
        """Whether status and headers have come."""
        return self._mode != "head"

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self._mode in ("chunks", "trailers")

    def feed(self, ns: int, data: bytes) -> None:
        """Take in what came at `ns`. Raises NotHttp."""
        if self._pending:
            data = self._pending + data
            self._pending = b""
        if self._mode == "head":
            data = self._read_head(data)
        if self._mode == "chunks":
            self._read_chunks(ns, data)
        elif self._mode == "trailers":
            self._read_trailers(data)
        elif self._mode == "length":
            self._read_counted(ns, data)
        elif self._mode == "until-close" and data:
            self.body.append((ns, data))

    def end(self) -> bool:
        """The connection ended; True when that is how this body ends."""
        self.complete = self.complete or self._mode == "until-close"
        return self.complete

    def _read_head(self, data: bytes) -> bytes:
        """Status and headers, once they are all there; gives what follows them."""
        if b"HTTP/1."[: len(data)] != data[:7]:
            raise NotHttp(f"it answered with {data[:40]!r}")
        stop = data.find(b"\r\n\r\n")
        if stop < 0:
            if len(data) > HEAD_LIMIT:
                raise NotHttp(f"its headers are longer than {HEAD_LIMIT} bytes")
            self._pending = data
            return b""
        if stop > HEAD_LIMIT:
            raise NotHttp(f"its headers are longer than {HEAD_LIMIT} bytes")
        first, *lines = data[:stop].split(b"\r\n")
        found = _STATUS.fullmatch(first)
        if found is None:
            raise NotHttp(f"its status line is {first[:60]!r}")
        self.status = int(found[2])
        self.headers = dict(_header(line) for line in lines)
        rest = data[stop + 4 :]
        if 100 <= self.status < 200:  # on its way: the answer proper follows
            return self._read_head(rest) if rest else b""
        self._choose(found[1] == b"1")
        return rest

    def _choose(self, version_1_1: bool) -> None:
        """How the body ends (RFC 9112, 6.3)."""
        said = self.headers.get("connection", "").lower()
        self.keep_alive = "close" not in said if version_1_1 else "keep-alive" in said
        coding = self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        if self.status in (204, 304):
            self._mode, self.complete = "length", True
        elif coding == "chunked":
            self._mode = "chunks"
        elif coding:
            raise NotHttp(f"its transfer encoding is {coding[:40]!r}")
        elif length is not None:
            if not length.isascii() or not length.isdigit():
                raise NotHttp(f"its content length is {length[:40]!r}")
            self._mode, self._left = "length", int(length)
            self.complete = self._left == 0
        else:
            self._mode, self.keep_alive = "until-close", False

    def _read_counted(self, ns: int, data: bytes) -> None:
        if len(data) > self._left:
            raise NotHttp("it sent more than the length that it gave")
        if data:
            self.body.append((ns, data))
            self._left -= len(data)
        self.complete = self._left == 0

    def _read_chunks(self, ns: int, data: bytes) -> None:
        at, end = 0, len(data)
        while True:
            if self._left:
                piece = data[at : at + self._left]
                if not piece:
                    return
                self.body.append((ns, piece))
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    return
                self._crlf = True
            if self._crlf:
                if end - at < 2:
                    self._pending = data[at:]
                    return
                if data[at : at + 2] != b"\r\n":
                    raise NotHttp("a chunk is longer than the size that it gave")
                at += 2
                self._crlf = False
            stop = data.find(b"\r\n", at)
            if stop < 0:
                self._pending = _short(data[at:])
                return
            self._left = _chunk_size(data[at:stop])
            at = stop + 2
            if not self._left:
                self._mode = "trailers"
                self._read_trailers(data[at:])
                return

    def _read_trailers(self, data: bytes) -> None:
        """Lines after the last chunk, up to an empty one; what they say is not needed."""
        while (stop := data.find(b"\r\n")) > 0:
            data = data[stop + 2 :]
        if stop < 0:
            self._pending = _short(data)
            return
        if len(data) > 2:
            raise NotHttp("something follows its last chunk")
        self.complete = True


def _short(data: bytes) -> bytes:
    if len(data) > LINE_LIMIT:
        raise NotHttp(f"a line of its chunks is longer than {LINE_LIMIT} bytes")
    return data


def _chunk_size(line: bytes) -> int:
    size = line.partition(b";")[0].strip(b" \t")
    if not _SIZE.fullmatch(size):
        raise NotHttp(f"a chunk's size is {line[:40]!r}")
    return int(size, 16)


def _header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise NotHttp(f"one of its headers is {line[:60]!r}")
    return name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
