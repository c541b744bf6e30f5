"""Tries to reach the listeners that it is told of, and looks for a way to anywhere else and to names."""

import json
import socket
import sys

reached = []
for host, port in json.loads(sys.argv[1]):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_INET, kind) as sock:
                sock.settimeout(1)
                sock.connect((host, port))
                sock.sendall(b"GET /stolen HTTP/1.0\r\n\r\n")
            reached.append(f"{kind.name} {host}:{port}")
        except OSError:
            continue
# Connecting a datagram socket sends nothing: it works where there is a way to that address.
for host in ("169.254.169.254", "192.0.2.1", "203.0.113.1", "2001:db8::1", "ff02::1"):
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((host, 53))
        reached.append(f"a way to {host}")
    except OSError:
        continue
for name in ("example.com", "example.org"):
    try:
        socket.getaddrinfo(name, 80)
        reached.append(f"DNS {name}")
    except OSError:
        continue
print(json.dumps({"report": reached}), flush=True)
