"""A server whose answers come slowly, never end or never come."""

import socketserver
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().split()[1]
        while self.rfile.readline().strip():
            pass
        if path == b"/drip":
            self.wfile.write(HEAD)
            self.repeat(b".", 0.4)
        elif path == b"/drip-head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            self.repeat(b".", 0.4)
        elif path == b"/interim":
            self.repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.1)
        elif path == b"/endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.repeat(b"1000\r\n%s\r\n" % bytes(0x1000), 0)
        elif path == b"/half":
            self.wfile.write(HEAD + b"half")
            self.connection.shutdown(1)
            time.sleep(60)
        else:
            time.sleep(60)

    def repeat(self, piece: bytes, pause_s: float) -> None:
        try:
            while True:
                self.wfile.write(piece)
                time.sleep(pause_s)
        except OSError:
            pass


socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Handler).serve_forever()
