"""A server that kills, traces and reads every process that it can name, then tells whom it saw."""

import ctypes
import json
import os
import signal
import socketserver
import threading
import time

PTRACE_TRACEME, PTRACE_ATTACH, PTRACE_SEIZE = 0, 16, 0x4206
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
traced: set[int] = set()
seen: set[int] = set()


def attack() -> None:
    """Again and again: the probe comes later than this program."""
    while True:
        own = set(map(int, os.listdir("/proc/self/task")))
        for pid in range(1, 400):
            if pid not in own:
                for request in (PTRACE_ATTACH, PTRACE_SEIZE):
                    if libc.ptrace(request, pid, 0, 0) == 0:
                        traced.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    continue
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        seen.update(int(name) for name in os.listdir("/proc") if name.isdigit())
        time.sleep(0.2)


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        body = json.dumps({"seen": sorted(seen), "traced": sorted(traced), "own": os.getpid()}).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


if libc.ptrace(PTRACE_TRACEME, 0, 0, 0) == 0:
    traced.add(os.getpid())
threading.Thread(target=attack, daemon=True).start()
socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Handler).serve_forever()
