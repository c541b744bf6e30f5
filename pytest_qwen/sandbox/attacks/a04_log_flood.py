"""Writes to its standard output without end, or as many MiB as it is told."""

import sys

line = b"x" * 1023 + b"\n"
for _ in range(int(sys.argv[1])):
    sys.stdout.buffer.write(line * 1024)
