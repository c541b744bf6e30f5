"""Tries to reach the addresses that it is told, and well-known ones, by TCP, UDP and DNS."""

import json
import socket
import sys

targets = [*json.loads(sys.argv[1]), ["169.254.169.254", 80], ["8.8.8.8", 53], ["2001:4860:4860::8888", 53]]
reached = []
for host, port in targets:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind) as sock:
                sock.settimeout(1)
                sock.connect((host, port))
                sock.sendall(b"GET /stolen HTTP/1.0\r\n\r\n")
            reached.append(f"{kind.name} {host}:{port}")
        except OSError:
            continue
for name in ("example.com", "localhost.localdomain.example.com", "metadata.google.internal"):
    try:
        socket.getaddrinfo(name, 80)
        reached.append(f"DNS {name}")
    except OSError:
        continue
print(json.dumps({"report": reached}), flush=True)
