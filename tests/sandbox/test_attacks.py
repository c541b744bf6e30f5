"""Hostile programs are contained, and each attack tells when what should contain it is taken away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_qwen.escaping import escaped, printable
from pytest_qwen.exchanges import Call
from pytest_qwen.observations import Evidence, Server
from pytest_qwen.programs import Program, SourceFile
from pytest_qwen.reports.star_pages import star_page, stars_section
from pytest_qwen.reports.star_rows import star_properties, stars_csv
from pytest_qwen.reports.stars import scorecard_text, stars_table
from pytest_qwen.sandbox import image
from pytest_qwen.sandbox.attacks import ATTACKS, Attack, Canary, NotChecked
from pytest_qwen.sandbox.attacks.running import SMALL, program, served, unharmed
from pytest_qwen.sandbox.base import MIB, Job, Sandbox, SandboxFault
from pytest_qwen.sandbox.container import ContainerSandbox
from pytest_qwen.scorecards import DIMENSIONS, PROFILES, CheckOutcome, CheckResult, Rating, Scorecard

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BY_NUMBER = {attack.number: attack for attack in ATTACKS}


@pytest.fixture(scope="module")
def canary(engine: Any) -> Iterator[Canary]:
    with Canary(engine) as canary:
        yield canary


def test_there_is_a_program_for_each_of_the_25() -> None:
    assert [attack.number for attack in ATTACKS] == list(range(1, 26))
    for attack in ATTACKS:
        compile(program(attack.number), attack.name, "exec")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.number}-{attack.name}")
def test_contained(attack: Attack, sandbox: Sandbox, canary: Canary) -> None:
    try:
        assert attack.run(sandbox, canary) is None
    except NotChecked as reason:
        pytest.skip(str(reason))
    assert unharmed(sandbox) == ""


# ---- the attacks are real: without what contains them they get out, and say so


class Weakened:
    """An engine's client whose containers lack some of what they were asked to be made with.

    `host` replaces options of the host configuration, `made` those of the container; a function of the given
    options is called with them.
    """

    def __init__(self, client: Any, host: Any = None, made: Any = None) -> None:
        self._client, self._host, self._made = client, host or {}, made or {}

    @property
    def api(self) -> Any:
        return self

    def version(self) -> Any:
        return self._client.version()

    def create_host_config(self, **given: Any) -> Any:
        changes = self._host(given) if callable(self._host) else self._host
        raw = {name: value for name, value in changes.items() if name[0].isupper()}  # unknown to the SDK
        known = {name: value for name, value in changes.items() if name not in raw}
        return {**self._client.api.create_host_config(**{**given, **known}), **raw}

    def create_container(self, *arguments: Any, **given: Any) -> Any:
        changes = self._made(given) if callable(self._made) else self._made
        return self._client.api.create_container(*arguments, **{**given, **changes})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client.api, name)


def weak(engine: Any, host: Any = None, made: Any = None) -> ContainerSandbox:
    used = image.present(engine, "guest-slim") or image.find(engine)
    return ContainerSandbox(Weakened(engine, host, made), used, session=f"weak-{os.getpid()}")  # type: ignore[arg-type]


def with_the_guests_processes(given: dict[str, Any]) -> dict[str, Any]:
    """The probe shares more of the guest than its network."""
    mode = given["network_mode"]
    return {"pid_mode": mode} if mode.startswith("container:") else {}


UNFILTERED = {"security_opt": ["seccomp=unconfined"]}
TRUSTED = {"cap_drop": [], **UNFILTERED}
UNMASKED = {"MaskedPaths": [], "ReadonlyPaths": []}
WEAKNESSES: dict[str, tuple[int, Any, Any, str]] = {
    "more processes": (1, {"pids_limit": SMALL.pids * 3}, {}, "processes where 48 are allowed"),
    "swap": (2, {"memswap_limit": -1}, {}, "memory and swap are limited to"),
    "a writable root": (3, {"read_only": False}, {}, "went to its root file system"),
    "a larger log": (
        4,
        {"log_config": {"type": "json-file", "config": {"max-size": "64m"}}},
        {},
        "of log on the disk",
    ),
    "a network": (5, {"network_mode": "host"}, {"hostname": None}, "the canary listener heard TCP"),
    "no filter of families": (6, UNFILTERED, {}, "it opened family"),
    "an environment": (7, {}, lambda given: {"environment": {**given["environment"], **os.environ}}, "token"),
    "a writable /proc": (
        9,
        {**TRUSTED, **UNMASKED},
        {"user": "0:0"},
        "it opened /proc/sys/kernel/core_pattern",
    ),
    "common processes": (12, with_the_guests_processes, {}, ""),
    "privileges": (20, TRUSTED, {"user": "0:0"}, "it has the capabilities"),
    "no filter of calls": (21, UNFILTERED, {}, "the kernel took"),
    "no quota": (22, {"nano_cpus": 0}, {}, "the engine limits it to 0 CPUs"),
    "restarts": (24, {"restart_policy": {"Name": "always"}}, {}, "its policy is always"),
}


@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_the_attack_notices(weakness: str, engine: Any, canary: Canary) -> None:
    number, host, made, said = WEAKNESSES[weakness]
    sandbox = weak(engine, host, made)
    try:
        found = BY_NUMBER[number].run(sandbox, canary)
    except SandboxFault as fault:
        found = str(fault) if weakness == "common processes" else ""  # then the probe itself was killed
    finally:
        sandbox.close()
    assert found
    assert said in found


@pytest.mark.parametrize("number", [8, 11])
def test_the_attack_notices_a_shared_folder(number: int, engine: Any, canary: Canary, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as sock:
        os.chdir(tmp_path)  # the path of a socket must be short
        try:
            sock.bind("docker.sock")
        finally:
            os.chdir(ROOT)
        sandbox = weak(engine, {"binds": {str(tmp_path): {"bind": "/mnt", "mode": "rw"}}})
        try:
            found = BY_NUMBER[number].run(sandbox, canary)
        finally:
            sandbox.close()
    assert found
    assert f"of the host it has {tmp_path}" in found


# ---- several at once


def test_two_bombs_in_two_workers_and_a_harmless_neighbour(engine: Any, tmp_path: Path) -> None:
    (tmp_path / "test_bombs.py").write_text(
        textwrap.dedent(
            """
            import pathlib, time, uuid
            import pytest
            from pytest_qwen.sandbox import engines, image
            from pytest_qwen.sandbox.attacks.running import started, unharmed
            from pytest_qwen.sandbox.container import ContainerSandbox

            @pytest.mark.parametrize("number", [1, 22])
            def test_bomb(number):
                client = engines.connect("auto")
                used = image.present(client, "guest-slim") or image.find(client)
                sandbox = ContainerSandbox(client, used, session=uuid.uuid4().hex)
                with started(sandbox, number) as guest:
                    here = pathlib.Path(__file__).parent
                    (here / f"going-{number}").touch()
                    deadline = time.monotonic() + 60
                    while len(list(here.glob("going-*"))) < 2:
                        assert time.monotonic() < deadline, "the other bomb never went off"
                        time.sleep(0.05)
                    assert unharmed(sandbox) == ""
                    assert guest.state().running
                client.close()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


# ---- what a forger can reach of a report


@pytest.fixture
def evidence(sandbox: Sandbox) -> Evidence:
    """What a forging server got into the records: its answer, log and source."""
    with served(sandbox, 25) as both:
        exchanges = both.probe.batch([Call(name="x", method="GET", path="/clean-head")])
        log = both.guest.log().head
    assert exchanges["x"].status == 500
    assert "\x1b" in exchanges["x"].body
    assert b"\x1b" in log
    source = SourceFile(path="main.py", text=exchanges["x"].body, language="python")
    return Evidence(
        scenario="scenario",
        answer="answer",
        answer_sha256="0" * 64,
        program=Program(files=(source,), main="main.py", prose=exchanges["x"].body),
        servers={"main": Server(ready=True, log_head=printable(log))},
        exchanges=exchanges,
    )


@pytest.fixture
def forged(evidence: Evidence) -> str:
    """All that the forger said, as it said it."""
    return evidence.exchanges["x"].body + str(evidence.exchanges["x"])


def assert_shown(text: str) -> None:
    assert "forged" in text
    assert not [line for line in text.split("\n") if not line.isprintable()]


def assert_harmless(text: str) -> None:
    """Nothing for a terminal to act on, and no command to a service that reads the terminal's output."""
    assert_shown(text)
    assert not [line for line in text.split("\n") if line.lstrip().startswith("::")]
    assert "##vso" not in text


def forged_card(everything: str) -> Scorecard:
    """A scorecard whose every text is the forger's."""
    rating = Rating(
        overall=0,
        stars=dict.fromkeys(DIMENSIONS, 0),
        shares=dict.fromkeys(DIMENSIONS, 0.0),
        measured=dict.fromkeys(DIMENSIONS, 1.0),
        caps=(everything,),
    )
    check = CheckResult(
        id="C1",
        title="title",
        dimension="correctness",
        weight=1,
        outcome=CheckOutcome.FAIL,
        evidence=everything,
    )
    return Scorecard(
        answer=everything,
        answer_sha256="0" * 64,
        scenario="scenario",
        rubric="rubric/1",
        ratings=dict.fromkeys(PROFILES, rating),
        checks=(check,),
        notes=(everything,),
    )


def test_forged_text_is_harmless_on_a_terminal_and_in_tables(forged: str) -> None:
    card = forged_card(forged)
    assert_harmless(escaped(forged))
    assert_harmless(printable(forged.encode("utf-8", "surrogatepass")))
    for width in (40, 200):
        assert_harmless(stars_table([card], width=width))
        assert_harmless(scorecard_text(card, width=width))
    assert_harmless(stars_section([card]))
    assert_harmless(stars_csv([card]))


def test_forged_evidence_is_harmless_on_its_page(evidence: Evidence, forged: str) -> None:
    page = star_page(evidence, forged_card(forged))
    assert_shown(page)  # code is shown as it was written: a page is no log of a build
    assert len([line for line in page.split("\n") if line.startswith("# ")]) == 1


def test_forged_results_leave_junit_well_formed(forged: str, tmp_path: Path) -> None:
    properties = star_properties([forged_card(forged)])
    shown = printable(forged.encode("utf-8", "surrogatepass"))
    (tmp_path / "test_forged.py").write_text(
        f"def test_it(record_property):\n"
        f"    for name, value in {properties!r}:\n        record_property(name, value)\n"
        f"    print({shown!r})\n    raise AssertionError({shown!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "--junitxml=r.xml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout
    assert "1 failed" in done.stdout.decode().splitlines()[-1]
    (case,) = ET.parse(tmp_path / "r.xml").getroot().iter("testcase")  # noqa: S314 - written by the pytest above
    assert case.get("name") == "test_it"
    assert case.find("failure") is not None
    assert "forged" in "".join(case.itertext())


# ---- sources that are an attack by themselves


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("larger than a source should be", b"x = '" + b"a" * (2 * MIB) + b"'\nprint('ran')\n"),
        ("bidirectional", "access = 'user\u202e \u2066# admin\u2069 \u2066'\nprint('ran')\n".encode()),
        ("no text", b"\xff\xfe\x00print('ran')"),
        ("a name out of its folder", b"print('ran')\n"),
    ],
)
def test_hostile_sources_arrive_as_they_are_and_stay_in_their_folder(
    name: str, source: bytes, sandbox: Sandbox
) -> None:
    outside = ("../../var/tmp/evil.py", "/var/tmp/evil.py", "deep/../../var/tmp/evil.py")  # noqa: S108
    files = {"main.py": source, **(dict.fromkeys(outside, b"") if "out of" in name else {})}
    check = "import os; print(os.path.getsize('main.py'), os.listdir('/var/tmp'))"
    job = Job(argv=("python3", "-I", "-c", check), files=files, limits=SMALL)
    try:
        output = sandbox.run(job, timeout_s=30)
    except (SandboxFault, ValueError):
        assert "out of" in name  # refusing such a name is as good
        return
    assert output.stdout.decode() == f"{len(source)} []\n"


def test_a_source_that_kills_the_parser_ends_only_itself(sandbox: Sandbox) -> None:
    job = Job(argv=("python3", "main.py"), files={"main.py": b"(" * 100_000 + b")" * 100_000}, limits=SMALL)
    assert sandbox.run(job, timeout_s=30).exit_code != 0
    assert unharmed(sandbox) == ""
