"""Ignores every signal that can be ignored and leaves daemons behind; its first process goes if told so."""

import json
import os
import signal
import sys
import time

for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.wait()
print(json.dumps({"report": []}), flush=True)
if sys.argv[1] == "stays":
    while True:
        time.sleep(60)
