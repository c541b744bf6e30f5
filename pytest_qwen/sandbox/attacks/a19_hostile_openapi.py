"""A server whose OpenAPI documents are huge, deep, endless once resolved, or point at files and hosts."""

import json
import socketserver
import sys
from typing import Any

elsewhere = json.loads(sys.argv[1])


def document(schemas: dict[str, Any], paths: dict[str, Any] | None = None) -> str:
    answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}
    operation = {"post": {"requestBody": answer, "responses": {"200": answer}}}
    given = {"/predict": operation} if paths is None else paths
    return json.dumps({"openapi": "3.1.0", "paths": given, "components": {"schemas": schemas}})


def a(name: object) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


laughs = {"A": {"allOf": [a(1)] * 20}} | {str(n): {"allOf": [a(n + 1)] * 20} for n in range(1, 50)}
DOCUMENTS = {
    "/huge": document({"A": {"description": "x" * (3 << 20)}}),
    "/deep": '{"openapi": "3.1.0", "paths": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "/wide": document({"A": {"properties": {str(n): {} for n in range(60_000)}}}),
    "/operations": document({"A": {}}, {f"/{n}": {"get": {}} for n in range(5_000)}),
    "/circle": document({"A": a("B"), "B": a("A")}),
    "/recursive": document({"A": {"properties": {"next": a("A"), "all": {"items": a("A")}}}}),
    "/laughs": document(laughs),
    "/elsewhere": document({"A": {"allOf": [{"$ref": target} for target in elsewhere]}}),
    "/no-json": "x" * 1000,
    "/number": '{"openapi": "3.1.0", "x": ' + "9" * 10_000 + "}",
}


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        body = DOCUMENTS[path].encode()
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except OSError:
            pass


socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Handler).serve_forever()
