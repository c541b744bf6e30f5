"""Sessions that break in the middle of a rating: what they leave, what they keep, and no star that is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_qwen.errors import Unavailable
from pytest_qwen.records import JOURNAL_NAME, RUN_NAME
from pytest_qwen.sandbox import engines
from pytest_qwen.sandbox.base import Sandbox, SandboxFault
from pytest_qwen.sandbox.container import sweep
from pytest_qwen.sandbox.owners import LABEL
from pytest_qwen.serving import Launch, Serving

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ANSWER = ROOT / "fixtures/answers/crud/good.md"
PATIENCE_S = 180.0  # for what takes a second or five on a machine with nothing else to do
SWITCH_S = 20.0  # for guests to notice that nobody holds them any more
PRIVATE_BYTES = 1200 << 20  # the image twice, while it is loaded
TESTS = """
import pytest
from pytest_qwen import answer, min_stars

@answer({answer!r}, scenario="fastapi-crud")
@min_stars(5)
@pytest.mark.parametrize("number", range({tests}))
def test_rated(rate, number):
    rate()
"""


def eventually(what: str, found: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """What `found` gives as soon as it is true; fails when it never is."""
    deadline = time.monotonic() + within_s
    while not (value := found()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s:g} s: {what}")
        time.sleep(0.05)
    return value


@dataclass(kw_only=True)
class Session:
    """A pytest process that rates the same good answer in each of its tests."""

    process: subprocess.Popen[bytes]
    client: Any
    report: Path
    output: Path
    name: str = ""

    def containers(self, role: str | None = None, worker: str | None = None) -> list[dict[str, Any]]:
        """Those of this session that the engine knows, running or not."""
        wanted = [f"{LABEL}.session={self.name}"] if self.name else [f"{LABEL}.session"]
        wanted += [f"{LABEL}.role={role}"] if role else []
        wanted += [f"{LABEL}.worker={worker}"] if worker else []
        found = self.client.api.containers(all=True, filters={"label": wanted})
        return [one for one in found if self.name or _family(one) & {self.process.pid}]

    def running(self) -> list[str]:
        return [one["Id"] for one in self.containers() if one["State"] == "running"]

    def rating(self) -> list[dict[str, Any]]:
        """Its guests that run now; what the session is called is learned from the first."""
        self.alive()
        found = [one for one in self.containers("guest") if one["State"] == "running"]
        if found:
            self.name = found[0]["Labels"][f"{LABEL}.session"]
        return found

    def alive(self) -> bool:
        assert self.process.poll() is None, self.text()
        return True

    def journal(self) -> list[dict[str, Any]]:
        """The records so far, every line of them whole."""
        path = self.report / JOURNAL_NAME
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def records(self) -> list[dict[str, Any]]:
        """What the finished session left."""
        return list(json.loads((self.report / RUN_NAME).read_text())["records"])

    def middle(self, tests: int = 1) -> None:
        """Wait until so many tests are finished and the next one's program runs."""
        eventually("some tests finished", lambda: self.alive() and len(self.journal()) >= tests)
        eventually("the next program runs", self.rating)

    def end(self) -> int:
        """Wait for the end; its exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end:\n{self.text()}")

    def text(self) -> str:
        return self.output.read_text(errors="replace")


def _family(container: dict[str, Any]) -> set[int]:
    """The process that owns a container, and its parent."""
    pid = int(container["Labels"][f"{LABEL}.owner"].split(":")[1])
    try:
        return {pid, int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])}
    except OSError:
        return {pid}


Start = Callable[..., Session]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """`start(client, *arguments, tests=2)`: a session on that engine; none outlives the test."""
    begun: list[Session] = []

    def begin(
        client: Any, *arguments: str, tests: int = 2, report: Path | None = None, **env: str
    ) -> Session:
        folder = tmp_path / f"session{len(begun)}"
        folder.mkdir()
        (folder / "test_it.py").write_text(TESTS.format(answer=str(ANSWER), tests=tests))
        report = report or folder / "report"
        lean = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark", "-p", "no:cov"]
        with (folder / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *lean, f"--qwen-report={report}", *arguments],
                cwd=folder,
                env={**os.environ, "DOCKER_HOST": address(client), **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        begun.append(Session(process=process, client=client, report=report, output=folder / "output.txt"))
        return begun[-1]

    yield begin
    for session in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session.process.pid, signal.SIGKILL)
        session.process.wait()


def address(client: Any) -> str:
    return str(client.api.base_url).replace("http+docker://localhost", "unix://" + _socket(client))


def _socket(client: Any) -> str:
    return str(getattr(client.api.get_adapter("http+docker://"), "socket_path", ""))


def check_words(session: Session) -> str:
    """The session's output, which has no traceback of ours in it."""
    text = session.text()
    assert "INTERNALERROR" not in text, text
    assert "Traceback" not in text, text
    assert not re.search(r"pytest_qwen/\S+\.py:\d+", text), text
    return text


def check_stars(records: list[dict[str, Any]]) -> tuple[int, int]:
    """How many good answers have their five stars and how many none; any other number is a wrong one."""
    stars = [one["scorecard"]["ratings"]["run"]["overall"] for record in records for one in record["rated"]]
    assert set(stars) <= {5, None}
    for record in records:
        for one in record["rated"]:
            if one["scorecard"]["ratings"]["run"]["overall"] is None:
                assert one["evidence"]["infra_errors"], one["evidence"]
                assert record["outcome"] == "failed"
    return stars.count(5), stars.count(None)


# ---- the session itself is ended


def test_ctrl_c_removes_its_containers_and_keeps_what_was_finished(
    engine: Any, slim: str, start: Start
) -> None:
    session = start(engine)
    session.middle()
    os.killpg(session.process.pid, signal.SIGINT)  # as a terminal does
    assert session.end() == pytest.ExitCode.INTERRUPTED
    assert session.containers() == []
    assert "KeyboardInterrupt" in session.text()
    assert "INTERNALERROR" not in session.text(), session.text()
    finished, unrated = check_stars(session.records())
    assert finished >= 1
    assert unrated == 0


def test_ctrl_c_in_the_self_check(engine: Any, slim: str, start: Start) -> None:
    session = start(engine)
    eventually("the known answers run", session.rating)
    os.killpg(session.process.pid, signal.SIGINT)
    assert session.end() == pytest.ExitCode.INTERRUPTED
    assert session.containers() == []
    assert "INTERNALERROR" not in session.text(), session.text()


def test_after_a_killed_session_its_guests_end_and_the_next_session_sweeps(
    engine: Any, slim: str, start: Start
) -> None:
    session = start(engine)
    session.middle()
    session.process.kill()
    session.process.wait()
    eventually("its guests end by themselves", lambda: not session.running(), SWITCH_S)
    finished, unrated = check_stars(session.journal())
    assert finished >= 1
    assert unrated == 0

    following = start(engine, tests=1)
    eventually("the next session's sweep removed them", lambda: not session.containers())
    assert following.end() == 0, following.text()
    assert check_stars(following.records()) == (1, 0)
    assert following.containers() == []


def test_a_killed_worker_loses_its_own_test_and_nothing_else(engine: Any, slim: str, start: Start) -> None:
    session = start(engine, "-n", "2", tests=3)
    session.middle()
    victim = session.rating()[0]["Labels"]
    os.kill(int(victim[f"{LABEL}.owner"].split(":")[1]), signal.SIGKILL)
    assert session.end() == pytest.ExitCode.TESTS_FAILED, session.text()
    text = check_words(session)
    assert f"worker '{victim[f'{LABEL}.worker']}' crashed" in text
    finished, unrated = check_stars(session.records())
    assert finished == 2
    assert unrated == 0
    eventually("the worker's guests end", lambda: not session.running(), SWITCH_S)
    sweep(engine)
    assert session.containers() == []


# ---- the engine breaks


@dataclass(frozen=True)
class Private:
    """An engine of the tests' own, with little disk, started and stopped by `.ci/engine`."""

    folder: Path

    def do(self, command: str) -> str:
        done = subprocess.run(
            [str(ROOT / ".ci/engine"), command],
            env={**os.environ, "ENGINE_DIR": str(self.folder), "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a private engine cannot be had: {done.stderr.strip().splitlines()[-1]}")
        return done.stdout

    def start(self) -> Any:
        """A client of it; starts it if need be."""
        found = re.search(r"unix://\S+", self.do("start"))
        assert found
        return engines.connect(found[0])

    def kill(self) -> None:
        os.kill(int((self.folder / "dockerd.pid").read_text()), signal.SIGKILL)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of a few bytes; only root can have one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a full disk needs a small file system, which only root can mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def fill(folder: Path) -> Path:
    """Leave no byte free there; the file that takes them."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"\0" * (1 << 20))
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"\0")
    return filler


@pytest.fixture(scope="module")
def private(engine: Any, slim: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    """A second engine with the slim image, on a disk of its own."""
    if not (ROOT / ".ci/engine").exists() or os.getuid():
        pytest.skip("breaking an engine needs one of the tests' own, which only root can start")
    made = Private(tmp_path_factory.mktemp("engine"))
    with small_disk(made.folder / "data", PRIVATE_BYTES):
        try:
            client = made.start()
            client.api.load_image(engine.api.get_image(slim))
            client.close()
            yield made
        finally:
            made.do("stop")


@pytest.fixture
def own(private: Private) -> Iterator[Any]:
    """A client of the private engine, which runs and is empty."""
    try:
        client = private.start()
    except Unavailable as error:
        pytest.fail(str(error))
    sweep(client)
    assert client.api.containers(all=True) == []
    yield client
    client.close()


def check_broken(session: Session) -> None:
    """It ended with a verdict on what was finished, and with none, in words, on what was not."""
    assert session.end() == pytest.ExitCode.TESTS_FAILED, session.text()
    text = check_words(session)
    assert "NO VERDICT" in text, text
    assert "engine broke down" in text, text
    finished, unrated = check_stars(session.records())
    assert finished >= 1
    assert unrated >= 1


def test_a_killed_engine_leaves_no_verdict(private: Private, own: Any, start: Start) -> None:
    session = start(own)
    session.middle()
    processes = [own.api.inspect_container(name)["State"]["Pid"] for name in session.running()]
    private.kill()
    check_broken(session)
    again = private.start()
    sweep(again)
    assert again.api.containers(all=True) == []
    again.close()
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]


def test_an_engine_killed_in_the_self_check_rates_nothing(private: Private, own: Any, start: Start) -> None:
    session = start(own)
    eventually("the known answers run", session.rating)
    private.kill()
    assert session.end() == pytest.ExitCode.TESTS_FAILED, session.text()
    assert "engine broke down" in check_words(session)
    assert check_stars(session.records()) == (0, 0)
    again = private.start()
    sweep(again)
    assert again.api.containers(all=True) == []
    again.close()


@pytest.mark.parametrize("roles", [("guest",), ("guest", "probe")])
def test_only_a_program_that_ended_alone_ended_by_itself(
    engine: Any, sandbox: Sandbox, roles: Sequence[str]
) -> None:
    launch = Launch(argv=("python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"), files={}, env={})
    with Serving(sandbox, launch) as serving:
        assert serving.ready("/")
        label = f"{LABEL}.session={sandbox_name(engine, serving)}"
        for role in roles:
            for found in engine.api.containers(filters={"label": [label, f"{LABEL}.role={role}"]}):
                engine.api.kill(found["Id"])
        serving.guest.wait(10.0)
        if roles == ("guest",):
            assert serving.server().ended == "killed"
        else:
            with pytest.raises(SandboxFault, match="both were ended from outside"):
                serving.server()
            with pytest.raises(SandboxFault, match="both were ended from outside"):
                serving.terminate(1.0)


def sandbox_name(engine: Any, serving: Serving) -> str:
    labels = engine.api.inspect_container(serving.guest.id)["Config"]["Labels"]
    return str(labels[f"{LABEL}.session"])


def test_an_engine_that_comes_back_at_once_gives_no_wrong_star(
    private: Private, own: Any, start: Start
) -> None:
    session = start(own)
    session.middle()
    private.kill()
    private.start().close()
    assert session.end() == pytest.ExitCode.TESTS_FAILED, session.text()
    check_words(session)
    finished, unrated = check_stars(session.records())
    assert finished >= 1
    assert unrated >= 1
    sweep(own)
    assert own.api.containers(all=True) == []


def test_a_full_disk_of_the_engine_leaves_no_verdict(private: Private, own: Any, start: Start) -> None:
    session = start(own, tests=3)
    session.middle()
    filler = fill(private.folder / "data")
    try:
        check_broken(session)
    finally:
        filler.unlink()
    sweep(own)
    assert own.api.containers(all=True) == []


# ---- our own disk is full


def test_a_full_report_folder_keeps_what_it_had(engine: Any, slim: str, start: Start, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 1 << 20) as disk:
        session = start(engine, report=disk / "report")
        session.middle()
        fill(disk)
        session.end()
        text = check_words(session)
        assert "No space left on device" in text, text
        assert text.count("the report in") == 1, text
        finished, unrated = check_stars(session.journal())
        assert finished >= 1
        assert unrated == 0
    assert session.containers() == []


def test_a_full_runtime_folder_does_not_change_a_star(
    engine: Any, slim: str, start: Start, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", 1 << 20) as disk:
        fill(disk)
        session = start(engine, tests=1, XDG_RUNTIME_DIR=str(disk))
        assert session.end() == 0, session.text()
        check_words(session)
        assert check_stars(session.records()) == (1, 0)
