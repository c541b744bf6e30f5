"""The contract of a sandbox, on a real engine: what goes in, what is seen, what ends, and what is left."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_qwen.errors import Unavailable
from pytest_qwen.sandbox.base import MIB, Container, Job, Limits, SandboxFault
from pytest_qwen.sandbox.container import ContainerSandbox, sweep

ROOT = Path(__file__).parents[2]
SMALL = Limits(memory_bytes=256 * MIB, pids=32, tmp_bytes=32 * MIB, file_bytes=16 * MIB, lifetime_s=30.0)
SLEEP = ("python3", "-c", "import time; time.sleep(60)")


def python(code: str, **values: Any) -> Job:
    return Job(argv=("python3", "-c", code), limits=values.pop("limits", SMALL), **values)


def said(sandbox: ContainerSandbox, code: str, **values: Any) -> str:
    """What a program prints; fails the test when it did not end well."""
    output = sandbox.run(python(code, **values))
    assert output.exit_code == 0, output.stderr.decode()
    return output.stdout.decode().strip()


def listed(engine: Any, container: Container) -> bool:
    return any(one.id == container.id for one in engine.containers.list(all=True))


def test_files_arrive_and_the_exit_code_comes_back(sandbox: ContainerSandbox) -> None:
    files = {"a.txt": b"one", "deep/er/b.bin": bytes(range(256))}
    code = "import sys; print(open('a.txt').read(), len(open('deep/er/b.bin','rb').read())); sys.exit(3)"
    output = sandbox.run(python(code, files=files))
    assert (output.exit_code, output.stdout, output.stderr) == (3, b"one 256\n", b"")


def test_the_environment_is_the_fixed_list_and_what_the_job_says(
    sandbox: ContainerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_CANARY", "a secret")
    names = said(sandbox, "import os; print(*sorted(os.environ))", env={"MINE": "1"}).split()
    fixed = "HOME HOSTNAME LANG OMP_NUM_THREADS PATH PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED"
    assert names == sorted(["MINE", *fixed.split()])


def test_who_it_runs_as_and_what_it_may(sandbox: ContainerSandbox) -> None:
    status = said(sandbox, "print(open('/proc/self/status').read())")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["65534"] * 4
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"


def test_the_root_cannot_be_written_and_the_folders_are_small(sandbox: ContainerSandbox) -> None:
    code = """
import os
for path in ("/etc/x", "/usr/x", "/x", "/opt/x", "/var/x"):
    try:
        open(path, "w")
        print("wrote", path)
    except OSError:
        pass
print(*(os.statvfs(p).f_blocks * os.statvfs(p).f_frsize >> 20 for p in ("/tmp", "/work", "/dev/shm")))
"""
    assert said(sandbox, code) == "32 64 16"


def test_there_is_no_network_but_loopback(sandbox: ContainerSandbox) -> None:
    code = """
import socket
print(*sorted(name for _, name in socket.if_nameindex()))
for family, address in ((socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("2001:db8::1", 80))):
    with socket.socket(family) as s:
        s.settimeout(2)
        try:
            s.connect(address)
            print("connected")
        except OSError:
            pass
"""
    assert said(sandbox, code).split()[0] == "lo"
    assert "connected" not in said(sandbox, code)


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("memory", "x = bytearray(600 << 20); x[::4096] = b'1' * len(x[::4096])"),
        ("lifetime", "import time; time.sleep(60)"),
    ],
)
def test_what_uses_too_much_is_killed(sandbox: ContainerSandbox, limit: str, code: str) -> None:
    limits = Limits(memory_bytes=128 * MIB, lifetime_s=3.0 if limit == "lifetime" else 30.0)
    guest = sandbox.start(python(code, limits=limits))
    state = guest.wait(20)
    assert (state.running, state.exit_code, state.ended) == (False, 137, "killed")


def test_processes_files_and_bytes_are_limited(sandbox: ContainerSandbox) -> None:
    code = """
import os, resource
count = 0
try:
    for _ in range(100):
        if os.fork() == 0:
            os.execvp("python3", ["python3", "-c", "import time; time.sleep(20)"])
        count += 1
except OSError:
    pass
print(count < 40, resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE))
try:
    open("/tmp/big", "wb").write(b"x" * (20 << 20))
    print("wrote all")
except OSError as error:
    print(error.strerror)
"""
    lines = said(sandbox, code).splitlines()
    assert lines == ["True (1024, 1024) (0, 0)", "File too large"]


def test_state_tells_the_same_process_and_how_it_ended(sandbox: ContainerSandbox) -> None:
    guest = sandbox.start(python("import time; time.sleep(1); raise SystemExit(5)"))
    first, second = guest.state(), guest.state()
    assert first.running
    assert (first.pid, first.started_at) == (second.pid, second.started_at)
    assert first.pid
    end = guest.wait(10)
    assert (end.running, end.exit_code, end.ended) == (False, 5, "exited")


def test_sigterm_reaches_the_program_and_orphans_do_not_outlive_it(sandbox: ContainerSandbox) -> None:
    code = """
import os, signal, subprocess, sys, time
subprocess.Popen(["python3", "-c", "import time; time.sleep(60)"], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
time.sleep(60)
"""
    guest = sandbox.start(python(code))
    while b"ready" not in guest.log().head:
        time.sleep(0.05)
    guest.signal("SIGTERM")
    assert guest.wait(10).exit_code == 7
    guest.signal("SIGTERM")  # nothing happens when it has ended


def test_process_1_cannot_be_ended_or_looked_into(sandbox: ContainerSandbox) -> None:
    code = """
import os, signal
for number in (signal.SIGKILL, signal.SIGSTOP):
    os.kill(1, number)
for name in ("mem", "environ", "fd/0"):
    try:
        open(f"/proc/1/{name}", "rb").read(1)
        print("opened", name)
    except OSError:
        pass
print("alive")
"""
    assert said(sandbox, code) == "alive"


def test_a_log_is_read_from_both_ends(sandbox: ContainerSandbox) -> None:
    code = (
        "import sys\nprint('beside', file=sys.stderr)\n"
        "print('first')\nfor i in range(40000): print('x' * 50)\nprint('last')"
    )
    guest = sandbox.start(python(code))
    guest.wait(20)
    log = guest.log()
    assert b"first\n" in log.head
    assert log.tail.endswith(b"last\n")
    assert len(log.head) <= 64 << 10
    assert len(log.tail) <= 64 << 10
    # errors are in it too; where among the output is the engine's affair, which reads them from two pipes
    whole = len(b"beside\nfirst\nlast\n") + 40000 * 51
    assert len(log.head) + len(log.tail) + log.dropped_bytes == whole


def test_resident_memory_is_told(sandbox: ContainerSandbox) -> None:
    guest = sandbox.start(
        python("x = b'1' * (100 << 20); import time; print('full', flush=True); time.sleep(60)")
    )
    while b"full" not in guest.log().head:
        time.sleep(0.05)
    resident = guest.resident_bytes()
    assert resident is None or 100 * MIB < resident < 200 * MIB


def test_talking_line_by_line(sandbox: ContainerSandbox) -> None:
    code = "import sys\nfor line in sys.stdin: print(line.strip()[::-1] * 2000)"
    talk = sandbox.talk(python(code))
    talk.send(b"abc")
    talk.send(b"xyz")
    assert talk.receive(10) == b"cba" * 2000
    assert talk.receive(10) == b"zyx" * 2000
    with pytest.raises(SandboxFault, match="no answer within"):
        talk.receive(0.2)
    talk.close()
    talk.close()


def test_a_tool_that_dies_says_why(sandbox: ContainerSandbox) -> None:
    talk = sandbox.talk(python("raise RuntimeError('broken on purpose')"))
    with pytest.raises(SandboxFault, match="broken on purpose"):
        talk.receive(10)


def test_output_is_capped_and_a_hanging_tool_ends(sandbox: ContainerSandbox) -> None:
    output = sandbox.run(python("print('x' * 1000000)"), most_bytes=1000)
    assert output.truncated
    assert len(output.stdout) == 1000
    with pytest.raises(SandboxFault, match="did not end within"):
        sandbox.run(python("import time; time.sleep(60)"), timeout_s=1.0)


def test_beside_shares_the_network_and_nothing_else(sandbox: ContainerSandbox) -> None:
    serve = """
import socket
s = socket.create_server(("127.0.0.1", 8000))
open("/tmp/mine", "w").write("secret")
while True:
    c, _ = s.accept(); c.sendall(b"hello"); c.close()
"""
    look = """
import os, socket, time
for _ in range(100):
    try:
        print(socket.create_connection(("127.0.0.1", 8000)).recv(9).decode()); break
    except OSError:
        time.sleep(0.1)
print(os.path.exists("/tmp/mine"), len([p for p in os.listdir("/proc") if p.isdigit()]))
"""
    guest = sandbox.start(python(serve))
    talk = sandbox.talk(python(look), beside=guest)
    assert talk.receive(20) == b"hello"
    assert talk.receive(5) == b"False 2"


def test_removing_is_at_once_and_twice(sandbox: ContainerSandbox, engine: Any) -> None:
    guest = sandbox.start(Job(argv=SLEEP, limits=SMALL))
    assert listed(engine, guest)
    guest.remove()
    guest.remove()
    assert not listed(engine, guest)
    assert guest.state().ended == "killed"


def test_close_removes_everything_that_was_started(engine: Any, slim: str) -> None:
    made = ContainerSandbox(engine, slim, session="closing")
    guests = [made.start(Job(argv=SLEEP, limits=SMALL)) for _ in range(3)]
    made.close()
    assert not any(listed(engine, guest) for guest in guests)


def test_several_threads_at_once(sandbox: ContainerSandbox) -> None:
    found: list[bytes] = []

    def work(number: int) -> None:
        found.append(sandbox.run(python(f"print({number})")).stdout)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"{number}\n".encode() for number in range(6)]


KILLED = """
import sys, time
from pytest_qwen.sandbox import engines
from pytest_qwen.sandbox.base import Job, Limits
from pytest_qwen.sandbox.container import ContainerSandbox
sandbox = ContainerSandbox(engines.connect("auto"), sys.argv[1], session="killed")
guest = sandbox.start(Job(argv=("python3", "-c", "import time; time.sleep(600)"), limits=Limits(lifetime_s=600)))
print(guest.id, flush=True)
time.sleep(600)
"""


def test_a_killed_harness_takes_its_guest_along_and_the_next_sweep_cleans_up(engine: Any, slim: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, slim], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as harness:
        assert harness.stdout is not None
        identifier = harness.stdout.readline().strip()
        assert engine.containers.get(identifier).status == "running"
        os.kill(harness.pid, signal.SIGKILL)
        harness.wait()
    for _ in range(200):
        if engine.containers.get(identifier).status != "running":
            break
        time.sleep(0.05)
    assert engine.containers.get(identifier).status == "exited"
    assert sweep(engine) >= 1
    assert identifier not in [one.id for one in engine.containers.list(all=True)]


def test_a_sweep_leaves_the_living_alone_and_takes_the_expired(engine: Any, slim: str) -> None:
    living = ContainerSandbox(engine, slim, session="living")
    expired = ContainerSandbox(engine, slim, session="expired", clock=lambda: time.time() - 1000)
    here, gone = (one.start(Job(argv=SLEEP, limits=SMALL)) for one in (living, expired))
    try:
        living.sweep()
        assert listed(engine, here)
        assert not listed(engine, gone)
    finally:
        living.close()
        expired.close()


def test_an_image_that_is_not_there_is_said_and_never_pulled(engine: Any) -> None:
    nowhere = ContainerSandbox(engine, "pytest-qwen/none:0", session="none")
    with pytest.raises(Unavailable, match="pytest-qwen sandbox build"):
        nowhere.start(Job(argv=SLEEP))


def test_facts_name_engine_and_api(sandbox: ContainerSandbox) -> None:
    facts = sandbox.facts()
    assert facts["api"].count(".") == 1
    assert {"docker", "podman"} & facts.keys()


def test_an_engine_that_went_away_is_a_fault_of_the_sandbox(tmp_path: Path, slim: str) -> None:
    from docker import DockerClient

    path = tmp_path / "gone.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    gone = ContainerSandbox(DockerClient(base_url=f"unix://{path}", version="1.41"), slim, session="gone")
    with pytest.raises(SandboxFault, match="the container engine broke down"):
        gone.start(Job(argv=SLEEP))
