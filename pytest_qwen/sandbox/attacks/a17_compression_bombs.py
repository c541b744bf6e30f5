"""A server whose answers would be 64 MiB once unpacked, whatever encoding was asked for."""

import socketserver
import zlib


def packed(window: int, layers: int = 1) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    data = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    for _ in range(layers - 1):
        data = zlib.compress(data, 9)
    return data


BODIES = {
    b"/gzip": (b"gzip", packed(31)),
    b"/deflate": (b"deflate", packed(15)),
    b"/twice": (b"deflate, deflate", packed(15, layers=2)),
    # Nobody need know how to unpack it: the name alone would make a client try.
    b"/br": (b"br", packed(31)),
}


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().split()[1]
        while self.rfile.readline().strip():
            pass
        if path == b"/plain":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n")
            try:
                for _ in range(256):
                    self.wfile.write(bytes(1 << 20))
            except OSError:
                pass
            return
        encoding, body = BODIES[path]
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (
            encoding,
            len(body),
        )
        self.wfile.write(head + body)


socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Handler).serve_forever()
