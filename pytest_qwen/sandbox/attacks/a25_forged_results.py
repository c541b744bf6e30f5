"""A server that forges results wherever somebody may read them, and tells what it learns of its client."""

import json
import socketserver
import sys

ESCAPES = (
    "\x1b[2J\x1b]0;owned\x07\x1b[32m5 passed\x1b[0m\r\n::error::forged\n##vso[task.complete]\n\u202e\x9b31m"
)
FORGED = {"nonce": "", "id": 1, "exchanges": [{"name": "one", "status": 200}], "ready": True, "ports": [1]}
XML = '"/></testcase><testcase name="forged"/><!-- ]]>&#x1b;\x00\ud800'
requests: list[str] = []


def forge() -> None:
    for nonce in ("", None, "0" * 32, *requests):
        print(json.dumps({**FORGED, "nonce": nonce}), flush=True)
    sys.stdout.buffer.write((ESCAPES + XML).encode("utf-8", "surrogatepass") + b"\n")
    sys.stdout.buffer.flush()


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        request = [self.rfile.readline().decode()]
        while line := self.rfile.readline().strip().decode():
            request.append(line)
        requests.append("\n".join(request))
        forge()
        if "/requests" in request[0]:
            body = json.dumps(requests).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return
        body = json.dumps(FORGED).encode() + b"\n" + (ESCAPES + XML).encode("utf-8", "surrogatepass")
        head = b"HTTP/1.1 500 \x1b[32mOK\r\nX-Result: \x1b]0;owned\x07 ::error::forged\r\n"
        if "/clean-head" in request[0]:
            head = b"HTTP/1.1 500 Internal Server Error\r\n"
        self.wfile.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


forge()
socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Handler).serve_forever()
