"""The profile of system calls: an allow-list for one architecture that leaves nothing dangerous in."""

import json
import platform
from typing import Any

import pytest

from pytest_qwen.sandbox import seccomp

# fmt: off
REFUSED = [
    "acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime",
    "create_module", "delete_module", "fanotify_init", "fanotify_mark", "finit_module", "fsconfig",
    "fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module", "io_uring_enter",
    "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load",
    "kexec_load", "keyctl", "lookup_dcookie", "memfd_secret", "mknod", "mknodat", "modify_ldt",
    "mount", "mount_setattr", "move_mount", "move_pages", "migrate_pages", "name_to_handle_at",
    "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "personality", "pidfd_getfd",
    "pivot_root", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
    "query_module", "quotactl", "reboot", "request_key", "setdomainname", "sethostname", "setns",
    "settimeofday", "setxattr", "socketcall", "stime", "swapoff", "swapon", "sysfs", "syslog",
    "umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vhangup", "vm86",
]
# fmt: on
NEW_NAMESPACE = {
    "NEWTIME": 0x80,
    "NEWNS": 0x20000,
    "NEWCGROUP": 0x2000000,
    "NEWUTS": 0x4000000,
    "NEWIPC": 0x8000000,
    "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000,
    "NEWNET": 0x40000000,
}
THREAD = 0x3D0F00  # what the C library gives clone() for a thread
FORK = 0x1200011  # and for fork(): two bits for the child's number, and SIGCHLD
EPERM_BY_DEFAULT, ENOSYS = "EPERM", "ENOSYS"


def answer(name: str, *arguments: int) -> str:
    """What the profile says to a call, as an engine reads it: any rule that fits, else the default."""
    said: dict[str, Any] = json.loads(seccomp.profile_text())
    for rule in said["syscalls"]:
        if name in rule["names"] and all(_fits(one, arguments) for one in rule.get("args", ())):
            return ENOSYS if rule.get("errnoRet") == 38 else rule["action"].removeprefix("SCMP_ACT_")
    assert said["defaultAction"] == "SCMP_ACT_ERRNO"  # whose number is EPERM where none is named
    assert "defaultErrnoRet" not in said
    return EPERM_BY_DEFAULT


def _fits(condition: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    given = arguments[condition["index"]]
    if condition["op"] == "SCMP_CMP_MASKED_EQ":
        return given & condition["value"] == condition["valueTwo"]
    assert condition["op"] == "SCMP_CMP_EQ"
    return given == condition["value"]


@pytest.mark.parametrize("name", REFUSED)
def test_dangerous_calls_are_refused(name: str) -> None:
    assert answer(name) == EPERM_BY_DEFAULT


def test_what_is_unknown_is_refused() -> None:
    assert answer("a_call_of_a_kernel_to_come") == EPERM_BY_DEFAULT


@pytest.mark.parametrize(
    "name", ["execve", "futex", "mmap", "openat", "read", "epoll_wait", "accept4", "getrandom", "rseq"]
)
def test_what_every_program_needs_is_allowed(name: str) -> None:
    assert answer(name) == "ALLOW"


def test_threads_and_processes_may_be_made() -> None:
    assert answer("clone", THREAD) == answer("clone", FORK) == "ALLOW"


@pytest.mark.parametrize("flag", NEW_NAMESPACE.values(), ids=NEW_NAMESPACE)
def test_namespaces_may_not_be_made_beside_whatever_else(flag: int) -> None:
    assert answer("clone", flag) == answer("clone", FORK | flag) == EPERM_BY_DEFAULT


def test_clone3_does_not_exist_so_that_the_c_library_falls_back() -> None:
    assert answer("clone3", 0, 0) == ENOSYS


@pytest.mark.parametrize(("family", "protocol"), [(1, 0), (2, 0), (2, 6), (10, 17), (16, 0)])
def test_local_internet_and_routing_sockets_may_be_made(family: int, protocol: int) -> None:
    assert answer("socket", family, 1, protocol) == "ALLOW"


def test_no_other_family_of_sockets_may_be_made() -> None:
    allowed = {family for family in range(64) if answer("socket", family, 1, 0) == "ALLOW"}
    assert allowed == {1, 2, 10, 16}
    assert not [number for number in range(1, 32) if answer("socket", 16, 3, number) == "ALLOW"]
    assert answer("socket", 1 << 32 | 2, 1, 0) == EPERM_BY_DEFAULT


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "SCMP_ARCH_X86_64"),
        ("aarch64", "SCMP_ARCH_AARCH64"),
        ("arm64", "SCMP_ARCH_AARCH64"),
    ],
)
def test_only_the_machines_own_architecture_has_calls(
    machine: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert seccomp.profile()["architectures"] == [name]
