"""Tries to change the clock and its own priority, then keeps eight processes busy."""

import json
import os
import time

gained = []
for name, attempt in (
    ("clock_settime", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time() + 1)),
    ("nice", lambda: os.nice(-5)),
    ("setpriority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)),
    ("sched_setscheduler", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
):
    try:
        attempt()
        gained.append(name)
    except OSError:
        continue
print(json.dumps({"report": gained}), flush=True)
for _ in range(3):
    os.fork()
while True:
    pass
