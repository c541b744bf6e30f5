"""A server that redirects to what it is told, and counts the requests that follow."""

import json
import socketserver
import sys

targets = json.loads(sys.argv[1])
paths: list[str] = []


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        if path == "/paths":
            body = json.dumps(paths).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return
        paths.append(path)
        target = targets.get(path, "/loop").encode()
        head = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %s\r\nRefresh: 0; url=%s\r\n" % (target, target)
        self.wfile.write(head + b"Content-Length: 0\r\n\r\n")


socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Handler).serve_forever()
