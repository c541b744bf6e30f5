"""Plants sockets, pipes and devices wherever it may write; says which devices it could make."""

import contextlib
import json
import os
import socket
import stat
import time

made = []
for folder in ("/work", "/tmp", "/dev/shm", "/dev"):
    for name, kind, device in (("disk", stat.S_IFBLK, (8, 0)), ("memory", stat.S_IFCHR, (1, 1))):
        try:
            os.mknod(f"{folder}/{name}", kind | 0o666, os.makedev(*device))
            made.append(f"{folder}/{name}")
        except OSError:
            continue
    with contextlib.suppress(OSError):
        os.mkfifo(f"{folder}/pipe")
        socket.socket(socket.AF_UNIX).bind(f"{folder}/docker.sock")
print(json.dumps({"report": made}), flush=True)
time.sleep(60)
