"""Takes memory without end, every page of it touched."""

taken = []
while True:
    taken.append(b"x" * (16 << 20))
