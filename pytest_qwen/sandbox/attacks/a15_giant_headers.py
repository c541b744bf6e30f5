"""A server whose header never ends, is giant, or has a hundred thousand cookies."""

import socketserver


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().split()[1]
        while self.rfile.readline().strip():
            pass
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            if path == b"/giant":
                for _ in range(512):
                    self.wfile.write(b"X" * (1 << 20))
            elif path == b"/cookies":
                for number in range(100_000):
                    self.wfile.write(b"Set-Cookie: name%d=%s\r\n" % (number, b"v" * 100))
            while path == b"/endless":
                self.wfile.write(b"X-More: %s\r\n" % (b"v" * 1000))
            self.wfile.write(b"\r\n")
        except OSError:
            pass


socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Handler).serve_forever()
