"""Puts the pieces of an answer together: which one is the main file, and what the others are for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from pytest_qwen.extraction.fences import Scanned
from pytest_qwen.extraction.kinds import Kind, is_client_of_own_server
from pytest_qwen.extraction.pieces import Piece, bare_piece, pieces_of
from pytest_qwen.programs import NoProgram, Program, SourceFile

MAX_FILES = 50
MAX_TOTAL_BYTES = 1024 * 1024

# Where fastapi's own command looks for the app, in its order.
_USUAL_MAINS = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")
_ATTACHED: dict[Kind, str] = {
    "shell": "commands.sh",
    "requirements": "requirements.txt",
    "dockerfile": "Dockerfile",
    "compose": "docker-compose.yml",
    "project": "pyproject.toml",
    "document": "notes.md",
}


def program_of(scanned: Scanned, *, entry: re.Pattern[str], notes: Iterable[str] = ()) -> Program | NoProgram:
    """The program in an answer's blocks and prose. `notes` are those of the steps before."""
    told = list(notes)
    if scanned.wrapped:
        told.append("a markdown fence held the whole answer")
    pieces, prose = pieces_of(scanned.blocks, entry, told), scanned.prose
    if not any(piece.kind == "python" for piece in pieces) and (bare := bare_piece(prose, entry)):
        told.append(f"the code without a fence from line {bare.line} on was taken as Python")
        pieces.append(bare)
        prose = "\n".join(prose.split("\n")[: bare.line - 1])
    python = [piece for piece in pieces if piece.kind == "python"]
    if not any(piece.is_app for piece in python):
        return _nothing_to_run(pieces, python, prose, entry)
    program = _Assembly(pieces, told).program(prose, truncated=_is_truncated(scanned))
    size = len(program.source.encode())
    if size > MAX_TOTAL_BYTES:
        found = f"{program.main} has {size:,} bytes, a program at most {MAX_TOTAL_BYTES:,}"
        return NoProgram(reason="too large", detail=found)
    return program


def _is_truncated(scanned: Scanned) -> bool:
    """Whether the last fence was never closed; a bare fence with nothing behind it cut nothing off."""
    last = scanned.blocks[-1] if scanned.blocks else None
    return last is not None and not last.closed and bool(last.text.strip() or last.language or last.name)


def _in_words(pattern: str) -> str:
    """A pattern as it reads in code: "FastAPI(" for what matches just that."""
    return pattern.replace("\\", "")


def _nothing_to_run(
    pieces: Sequence[Piece], python: Sequence[Piece], prose: str, entry: re.Pattern[str]
) -> NoProgram:
    if python:
        lines = sum(piece.text.count("\n") for piece in python)
        found = f"{len(python)} pieces of Python with {lines} lines, none has {_in_words(entry.pattern)}"
        return NoProgram(reason="no entry", detail=found)
    if pieces:
        kinds = ", ".join(
            f"{number} {kind}" for kind, number in Counter(piece.kind for piece in pieces).items()
        )
        return NoProgram(reason="no code", detail=f"{len(pieces)} code blocks, none of them Python: {kinds}")
    return NoProgram(reason="no code", detail=f"{len(prose.split())} words and no code block")


class _Assembly:
    """Gives every piece its place. Later pieces take the place of earlier ones that they redefine."""

    def __init__(self, pieces: Sequence[Piece], notes: list[str]) -> None:
        self._pieces = pieces
        self._notes = notes
        self._files: dict[str, Piece] = {}  # named Python and data
        self._nameless: Piece | None = None  # the app without a name
        self._attachments: dict[str, Piece] = {}
        self._clients: dict[str, Piece] = {}

    def program(self, prose: str, *, truncated: bool) -> Program:
        """Place all pieces, choose the main file, keep what the limits allow."""
        for piece in self._pieces:
            self._place(piece)
        main = self._main()
        self._set_clients_apart(main)
        kept = self._within_limits(main)
        if truncated:
            self._notes.append("the last fence was never closed: the answer was cut")
        return Program(
            files=_sources(self._files, kept),
            main=main,
            attachments=_sources(self._attachments, kept),
            clients=_sources(self._clients, kept),
            prose=prose.strip("\n"),
            truncated=truncated,
            notes=tuple(self._notes),
        )

    def _place(self, piece: Piece) -> None:
        if piece.kind in _ATTACHED:
            path = piece.path or _free(_ATTACHED[piece.kind], self._attachments)
            self._put(self._attachments, path, piece)
            self._notes.append(
                f"{path} (line {piece.line}, {piece.kind}) was attached: it is read and never run"
            )
        elif piece.kind == "python" and piece.is_app:
            self._place_app(piece)
        elif piece.path and piece.kind in ("python", "data"):
            self._put(self._files, piece.path, piece)
        elif piece.is_loose_client and piece.kind == "python":
            path = _free("client.py", self._clients)
            self._clients[path] = piece
            self._notes.append(f"{path} (line {piece.line}) only uses the app: a client")
        else:
            why = "makes no app" if piece.kind == "python" else f"is {piece.kind}"
            self._notes.append(f"the block at line {piece.line} was left out: it has no name and {why}")

    def _place_app(self, piece: Piece) -> None:
        if piece.path:
            earlier = self._nameless
            if earlier and earlier.app == piece.app and piece.supersedes(earlier):
                self._notes.append(f"{piece.label} replaced {earlier.label}: it makes the same app again")
                self._nameless = None
            self._put(self._files, piece.path, piece)
            return
        path, known = self._earlier_app(piece.app)
        if known is None:
            self._nameless = piece
        elif not piece.supersedes(known):
            why = "is cut off" if not piece.closed else "is a fragment"
            self._notes.append(f"{piece.label} was left out: it {why}, {known.label} is complete")
        elif known.app != piece.app and known.whole:
            self._notes.append(
                f"{piece.label} was left out: it makes another app than {known.label}, without a name"
            )
        else:
            self._notes.append(f"{piece.label} replaced {known.label}: it makes the app again")
            if path is None:
                self._nameless = piece
            else:
                self._files[path] = piece

    def _earlier_app(self, app: str | None) -> tuple[str | None, Piece | None]:
        """The piece that a nameless app would replace, with its path: the same app first, else any."""
        named = [(path, piece) for path, piece in self._files.items() if piece.is_app]
        known = [(None, self._nameless), *named] if self._nameless else named
        same = [(path, piece) for path, piece in known if piece and piece.app == app]
        return next(iter(same or known), (None, None))

    def _put(self, place: dict[str, Piece], path: str, piece: Piece) -> None:
        """Put a named piece into its place, unless what is there is more complete."""
        earlier = place.get(path)
        if earlier is not None and not piece.supersedes(earlier):
            self._notes.append(
                f"{path}: the version at line {piece.line} is cut or a fragment and was left out"
            )
            return
        if earlier is not None:
            self._notes.append(
                f"{path}: the version at line {piece.line} replaced that at line {earlier.line}"
            )
        place[path] = piece

    def _main(self) -> str:
        """The path of the main file. A nameless app is it, under a usual name that is free."""
        if self._nameless is not None:
            taken = {**self._files, **{folder: None for path in self._files for folder in _folders(path)}}
            path = next((name for name in _USUAL_MAINS[:3] if name not in taken), None) or _free(
                "main.py", taken
            )
            self._files[path] = self._nameless
            self._notes.append(
                f"{path} is the main file: the block at line {self._nameless.line} makes the app"
            )
            return path
        apps = [path for path, piece in self._files.items() if piece.is_app]
        usual = [path for path in _USUAL_MAINS if path in apps]
        imported = self._imported(apps)
        roots = [path for path in apps if path not in imported]
        main = (usual or roots[-1:] or apps)[0]
        self._notes.append(
            f"{main} is the main file" + (f" among {len(apps)} that make an app" if apps[1:] else "")
        )
        return main

    def _set_clients_apart(self, main: str) -> None:
        """Named Python that talks to the own server, and that no other file imports, is a client."""
        imported = self._imported(self._files)
        for path, piece in list(self._files.items()):
            if path in imported or path == main or piece.kind != "python":
                continue
            if is_client_of_own_server(piece.text):
                self._put(self._clients, path, self._files.pop(path))
                self._notes.append(f"{path} only talks to the server: a client")

    def _imported(self, paths: Iterable[str]) -> set[str]:
        """Which of the files another one of them imports, told by the module's last name."""
        words = {path: self._files[path].imported for path in paths}
        users = Counter(word for found in words.values() for word in found)
        modules = {path: path.rpartition("/")[2].removesuffix(".py") for path in words}
        return {path for path, name in modules.items() if users[name] > (name in words[path])}

    def _within_limits(self, main: str) -> set[str]:
        """The paths that are kept, the main file's first; each is of one file, and none is a folder too."""
        kept: set[str] = set()
        folders: set[str] = set()
        size = 0
        places = (self._files, self._clients, self._attachments)
        everything = [(path, piece) for place in places for path, piece in place.items()]
        for path, piece in sorted(everything, key=lambda each: each[0] != main):
            grown = size + len(piece.text.encode())
            if path in kept or path in folders or not kept.isdisjoint(_folders(path)):
                self._notes.append(f"{path} was left out: another file or folder has its name")
            elif len(kept) >= MAX_FILES or (grown > MAX_TOTAL_BYTES and path != main):
                limits = f"at most {MAX_FILES} files and {MAX_TOTAL_BYTES:,} bytes are kept"
                self._notes.append(f"{path} was left out: {limits}")
            else:
                size = grown
                kept.add(path)
                folders.update(_folders(path))
        return kept


def _sources(place: dict[str, Piece], kept: set[str]) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(path=path, text=piece.text, language=piece.language)
        for path, piece in place.items()
        if path in kept
    )


def _folders(path: str) -> Iterator[str]:
    """The folders above a path: "a/b/c.py" → "a", "a/b"."""
    parts = path.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def _free(path: str, taken: Iterable[str]) -> str:
    """`path`, or the first of path_2, path_3, … that is not taken."""
    stem, dot, suffix = path.partition(".")
    names = (f"{stem}_{number}{dot}{suffix}" for number in count(2))
    return path if path not in taken else next(name for name in names if name not in taken)
