"""A server that lies about the length of its answers, or sends a second answer behind the first."""

import socketserver

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ANSWERS = {
    b"/huge": b"Content-Length: 1000000000000000000\r\n\r\nfew",
    b"/absurd": b"Content-Length: %s\r\n\r\nfew" % (b"9" * 5000),
    b"/negative": b"Content-Length: -5\r\n\r\nfewer",
    b"/words": b"Content-Length: five\r\n\r\nwords",
    b"/double": b"Content-Length: 6\r\nContent-Length: 60\r\n\r\ndouble" + FORGED,
    b"/both": b"Content-Length: 4\r\n" + CHUNKED + b"\r\n4\r\nboth\r\n0\r\n\r\n" + FORGED,
    b"/chunk": CHUNKED + b"\r\nffffffffffffffffffff\r\nfew\r\n",
    b"/smuggled": b"Content-Length: 4\r\n\r\nmine" + FORGED * 100,
}


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().split()[1]
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + ANSWERS.get(path, b"Content-Length: 4\r\n\r\nmine"))


socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Handler).serve_forever()
