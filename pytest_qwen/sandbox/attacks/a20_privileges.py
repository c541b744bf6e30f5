"""Tries to become root or to get a namespace of its own; says what worked, then waits to be looked at."""

import ctypes
import json
import os
import platform
import stat
import time

libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
CLONE, CLONE3 = (56, 435) if platform.machine() == "x86_64" else (220, 435)
SIGCHLD = 17
gained = []


def attempt(name: str, result: int) -> None:
    if result >= 0:
        gained.append(name)


def clone(flags: int) -> int:
    """As fork does it, with more flags."""
    pid = libc.syscall(CLONE, ctypes.c_ulong(flags | SIGCHLD), None, None, None, None)
    if pid == 0:
        os._exit(0)
    return int(pid)


def clone3(flags: int) -> int:
    arguments = (ctypes.c_uint64 * 8)(flags, 0, 0, 0, SIGCHLD, 0, 0, 0)
    pid = libc.syscall(CLONE3, arguments, ctypes.c_size_t(64))
    if pid == 0:
        os._exit(0)
    return int(pid)


for name, flag in (("user", NEWUSER), ("mount", NEWNS), ("pid", NEWPID), ("network", NEWNET)):
    for more in {flag, flag | NEWUSER}:
        attempt(f"clone of a {name} namespace", clone(more))
        attempt(f"clone3 of a {name} namespace", clone3(more))
        attempt(f"unshare of a {name} namespace", libc.unshare(more))
for path in (
    "/proc/1/ns/mnt",
    "/proc/1/ns/net",
    "/proc/1/ns/user",
    "/proc/self/ns/user",
    "/proc/self/ns/mnt",
):
    try:
        attempt(f"setns to {path}", libc.setns(os.open(path, os.O_RDONLY), 0))
    except OSError:
        continue
attempt("mount of tmpfs", libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
attempt("remount of /", libc.mount(b"none", b"/", None, 32, None))
attempt("umount", libc.umount2(b"/proc", 2))
attempt("chroot", libc.chroot(b"/tmp"))
attempt("setuid(0)", libc.setuid(0))
attempt("setgid(0)", libc.setgid(0))
attempt("setgroups", libc.setgroups(0, None))
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if f"{folder}/{name}" not in {"//proc", "//sys"}]
    for name in files:
        path = os.path.join(folder, name)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            gained.append(f"setuid file {path}")
print(json.dumps({"report": gained}), flush=True)
time.sleep(60)
