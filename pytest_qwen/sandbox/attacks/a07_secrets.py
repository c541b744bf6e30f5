"""Prints every environment, command line and mount that it can see, and the file that it is told of."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

seen = {"environ": repr(dict(os.environ))}
paths = [*Path("/proc").glob("[0-9]*/environ"), *Path("/proc").glob("[0-9]*/cmdline")]
paths += [*map(Path, sys.argv[1:]), *(Path(f"/proc/1/root{path}") for path in sys.argv[1:])]
paths += map(Path, ("/proc/self/mountinfo", "/etc/shadow", "/run/secrets", "/var/run/secrets", "/root"))
for path in paths:
    with contextlib.suppress(OSError):
        content = path.read_bytes() if path.is_file() else repr(list(path.iterdir())).encode()
        seen[str(path)] = content.decode("utf-8", "replace")
print(json.dumps({"report": seen}), flush=True)
time.sleep(60)
