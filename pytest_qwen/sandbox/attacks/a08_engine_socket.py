"""Looks for sockets everywhere, and for names that engines give theirs."""

import json
import os
import stat
import time

found = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if f"{folder}/{name}" not in {"//proc", "//sys"}]
    for name in files:
        path = os.path.join(folder, name)
        try:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            is_socket = False
        if is_socket or name.endswith(".sock"):
            found.append(path)
with open("/proc/net/unix") as table:
    found += [line.split()[-1] for line in table.readlines()[1:]]
print(json.dumps({"report": found}), flush=True)
time.sleep(60)
