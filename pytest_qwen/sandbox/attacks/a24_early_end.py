"""A server that ends at once, crashes, or ends after its first answers."""

import os
import socketserver
import sys

how = sys.argv[1]
if how == "exit":
    print("all tests passed", flush=True)
    sys.exit(0)
if how == "crash":
    sys.exit("no model today")


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        self.connection.close()
        os._exit(0)


socketserver.TCPServer(("127.0.0.1", 8000), Handler).serve_forever()
