"""Evidence made by hand, for tests of checks."""

from __future__ import annotations

import json
from typing import Any

from pytest_qwen.exchanges import Exchange
from pytest_qwen.observations import Evidence, Server
from pytest_qwen.programs import Program, SourceFile

ORACLE = {
    "good.0": {"label": "normal", "score": 0.9},
    "good.1": {"label": "nsfw", "score": 0.8},
    "hidden.0": {"label": "nsfw", "score": 0.7},
    "hidden.1": {"label": "normal", "score": 0.95},
}


def exchange(name: str, status: int | None = 200, body: object = "", **values: Any) -> Exchange:
    text = body if isinstance(body, str) else json.dumps(body)
    failure = values.pop("failure", None if status is not None else "closed")
    return Exchange(
        name=name, method="POST", path="/predict", status=status, body=text, failure=failure, **values
    )


def answered(name: str, label: str, score: float, **values: Any) -> Exchange:
    return exchange(name, 200, {"label": label, "score": score}, **values)


def right(name: str) -> Exchange:
    truth = ORACLE[f"good.{int(name.split('.')[1]) % 2}"] if name.startswith("parallel") else ORACLE[name]
    return answered(name, str(truth["label"]), float(str(truth["score"])))


def program(source: str = "app = FastAPI()\n", **values: Any) -> Program:
    return Program(
        files=(SourceFile(path="main.py", text=source, language="python"),), main="main.py", **values
    )


def server(**values: Any) -> Server:
    return Server(**{"ready": True, "steady": True, "alive_after": True, "ready_s": 4.0, **values})


def evidence(*exchanges: Exchange, servers: dict[str, Server] | None = None, **values: Any) -> Evidence:
    facts = {"oracle": ORACLE, "labels": ["normal", "nsfw"], **values.pop("facts", {})}
    return Evidence(
        scenario="fastapi-vit",
        answer="made by hand",
        answer_sha256="0" * 64,
        program=values.pop("program", program()),
        exchanges={one.name: one for one in exchanges},
        servers={"main": server()} if servers is None else servers,
        facts=facts,
        **values,
    )
