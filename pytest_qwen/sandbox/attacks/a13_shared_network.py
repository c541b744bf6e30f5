"""A server that searches the shared network for other listeners, and resets what connects to /reset."""

import json
import socket
import socketserver
import struct
from pathlib import Path


def listening() -> list[int]:
    """The ports that anything is bound to: listeners of TCP, and every socket of UDP."""
    found = []
    for table, wanted in (("tcp", "0A"), ("tcp6", "0A"), ("udp", ""), ("udp6", "")):
        lines = (
            Path("/proc/net", table).read_text().splitlines()[1:] if Path("/proc/net", table).exists() else []
        )
        rows = [line.split() for line in lines]
        found += [int(row[1].rpartition(":")[2], 16) for row in rows if not wanted or row[3] == wanted]
    return found


def abstract() -> list[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return [line.split()[-1] for line in lines if line.split()[-1].startswith("@")]


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        request = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        if b"/reset" in request:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        body = json.dumps({"listening": listening(), "abstract": abstract()}).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128


Server(("127.0.0.1", 8000), Handler).serve_forever()
