"""Writes up to 128 MiB, file after file, into every folder that lets it; says how much went where."""

import contextlib
import json
import os
import time

MOST = 128 << 20
FILE = 16 << 20
written = {}
for folder, _folders, _files in os.walk("/"):
    if folder.startswith(("/proc", "/sys", "/usr/")):
        continue
    total = 0
    with contextlib.suppress(OSError):
        while total < MOST:
            with open(f"{folder}/fill-{total}", "wb", buffering=0) as file:
                for _ in range(FILE >> 20):
                    total += file.write(bytes(1 << 20))
    if total:
        written[folder] = total
print(json.dumps({"report": written}), flush=True)
time.sleep(60)
