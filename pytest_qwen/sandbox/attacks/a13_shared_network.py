"""A server that searches the shared network for other listeners, and resets what connects to /reset."""

import json
import socket
import socketserver
import struct
from pathlib import Path


def listening() -> list[int]:
    found = []
    for port in range(1, 65536):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except PermissionError:
                continue
            except OSError:
                sock.settimeout(0.2)
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    found.append(port)
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
