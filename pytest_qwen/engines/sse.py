"""Server-sent events taken apart as they come, however they are cut into packets. Pure."""

from __future__ import annotations

LINE_LIMIT = 4_194_304  # bytes; a chunk with log-probabilities of many tokens is far smaller
_FIELDS = (b"data", b"event", b"id", b"retry")


class NotEvents(Exception):
    """What came is not a stream of events; the text says what it is."""


class EventParser:
    """The event stream of the HTML standard, 9.2.6, and strict: a line that is no field is an error.

    Lines may end in LF, CRLF or CR. An event is given with the piece that brings its empty line.
    """

    __slots__ = ("_cr", "_data", "_name", "_pending", "_started")

    def __init__(self) -> None:
        self._pending = b""
        self._cr = False  # the last piece ended in a CR whose LF may be still to come
        self._name = b""
        self._data: list[bytes] = []
        self._started = False

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """The events that end in this piece, each as its name (b"" for none) and data. Raises NotEvents."""
        # nearly all pieces of real servers: one whole event on one line
        if (
            not self._pending
            and not self._data
            and not self._cr
            and piece.startswith(b"data: ")
            and piece.endswith(b"\n\n")
            and piece.find(b"\n") == len(piece) - 2
            and b"\r" not in piece
            and not self._name
        ):
            self._started = True
            return [(b"", piece[6:-2])]
        return self._lines(self._unified(piece))

    def finish(self) -> list[tuple[bytes, bytes]]:
        """The stream ended: the event whose empty line never came, if there is one. Raises NotEvents."""
        return self._lines(b"\n\n") if self._pending or self._data else []

    def _unified(self, piece: bytes) -> bytes:
        """The piece with LF as its only line ending."""
        if self._cr and piece.startswith(b"\n"):
            piece = piece[1:]  # its CR has been read as the end of the line
            self._cr = False
        if piece:
            self._cr = piece.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece

    def _lines(self, text: bytes) -> list[tuple[bytes, bytes]]:
        *lines, rest = (self._pending + text).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise NotEvents(f"a line is longer than {LINE_LIMIT} bytes")
        self._pending = rest
        found = []
        for line in lines:
            if not self._started:
                self._started = True
                line = line.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901 - the standard's byte order mark
            if line:
                self._take(line)
            elif self._data:
                found.append((self._name, b"\n".join(self._data)))
                self._name, self._data = b"", []
            else:
                self._name = b""
        return found

    def _take(self, line: bytes) -> None:
        """One line that is not empty."""
        if line.startswith(b":"):
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name not in _FIELDS:
            raise NotEvents(f"a line of the stream is {line[:60]!r}")
