"""Answers of every shape and what is extracted from them: one table, then limits and properties."""

import re
import time
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_qwen.extraction import extract
from pytest_qwen.programs import NoProgram, Program

APP = "from fastapi import FastAPI\n\napp = FastAPI()\n\n\n@app.get('/')\ndef root():\n    return {}\n"
APP2 = APP.replace("{}", "{'version': 2}")
CLIENT = "import requests\n\nprint(requests.get('http://localhost:8000/').text)\n"
MODELS = "class Item:\n    name: str\n"
PIP = "pip install fastapi uvicorn\n"


def fenced(text: str, info: str = "python", marks: str = "```", indent: str = "") -> str:
    lines = (f"{marks}{info}\n" + text + marks).split("\n")
    return "\n".join(indent + line if line else line for line in lines) + "\n"


class Case(NamedTuple):
    answer: str | bytes
    files: dict[str, str]
    main: str = "main.py"
    attachments: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    note: str = ""
    truncated: bool = False


ONE = {"main.py": APP}
NESTED = APP.replace("def root():\n", 'def root():\n    """Use it:\n\n```bash\ncurl\n```\n"""\n')
PACKAGE = {"app/models.py": MODELS, "app/main.py": "from app.models import Item\n" + APP}

PROGRAMS = {
    # fences
    "plain": Case(f"Here it is:\n\n{fenced(APP)}\nDone.", ONE),
    "four backticks": Case(fenced(NESTED, marks="````"), {"main.py": NESTED}),
    "tildes": Case(fenced(NESTED, marks="~~~"), {"main.py": NESTED}),
    "longer closer": Case(f"```python\n{APP}``````\nprose", ONE),
    "closer with spaces": Case(f"```python\n{APP}```  \nprose", ONE),
    "tildes do not close backticks": Case(f"```python\n{APP}~~~\n```\n", {"main.py": APP + "~~~\n"}),
    "three spaces": Case(fenced(APP, indent="   "), ONE),
    "in a list": Case(f"1. Do this:\n\n{fenced(APP, indent='    ')}\n2. Run it.", ONE),
    "deep in a list": Case(f"- a\n  - b\n    - c\n\n{fenced(APP, indent='      ')}\nend", ONE),
    "after a list marker": Case("- " + fenced(APP, indent="  ")[2:], ONE),
    "list with code at the margin": Case(f"1. Do:\n\n   ```python\n{APP}   ```\n", ONE),
    "unterminated": Case(f"```python\n{APP}", {"main.py": APP + "\n"}, truncated=True, note="never closed"),
    "unterminated second block": Case(
        f"{fenced(APP)}```bash\npip inst", ONE, attachments=("commands.sh",), truncated=True
    ),
    "stray closer at the end": Case(fenced(APP) + "```", ONE),
    "no language": Case(fenced(APP, ""), ONE),
    "odd language": Case(fenced(APP, "Python3"), ONE),
    "whole answer in markdown": Case(
        f"```markdown\n# Server\n\n{fenced(APP)}\nRun:\n{fenced(PIP, 'bash')}```\n",
        ONE,
        attachments=("commands.sh",),
        note="markdown fence",
    ),
    "markdown fence never closed": Case(f"```md\n# Server\n{fenced(APP)}\nRun it.", ONE),
    "readme beside the program": Case(
        fenced(APP) + "**README.md**\n```markdown\n# Usage\n```bash\nuvicorn main:app\n```\n```\n",
        ONE,
        attachments=("README.md",),
    ),
    "bare code": Case(APP, ONE, note="without a fence"),
    "bare code below prose": Case(f"Here is the server.\n\n{APP}", ONE),
    "bare code, fenced commands": Case(f"{APP}\n{fenced(PIP, 'sh')}", ONE, attachments=("commands.sh",)),
    # cleaning
    "bytes": Case(fenced(APP).encode(), ONE),
    "byte order mark": Case(b"\xef\xbb\xbf" + fenced(APP).encode(), ONE),
    "utf-16": Case(fenced(APP).encode("utf-16"), ONE),
    "latin-1": Case(
        f"Voilà le code demandé :\n{fenced(APP)}".encode("latin-1"), ONE, note="2 control characters"
    ),
    "crlf": Case(fenced(APP).replace("\n", "\r\n"), ONE, note="line ends"),
    "cr": Case(fenced(APP).replace("\n", "\r"), ONE),
    "colours": Case(
        fenced(APP).replace("app", "\x1b[1;32mapp\x1b[0m") + "\x1b]0;title\x07", ONE, note="terminal codes"
    ),
    "lone surrogate": Case("\ud800 hello\n" + fenced(APP), ONE),
    "think": Case(f"<think>\nMaybe:\n{fenced(APP2)}\n</think>\n\n{fenced(APP)}", ONE, note="thoughts"),
    "open fence in thoughts": Case(f"<think>\n```python\nhm\n</think>\n{fenced(APP)}", ONE),
    "thoughts that began in the prompt": Case(f"Maybe:\n{fenced(APP2)}\n</think>\n{fenced(APP)}", ONE),
    "empty thoughts": Case(f"<think>\n\n</think>\n\n{fenced(APP)}", ONE),
    "thoughts between blocks": Case(
        f"{fenced(PIP, 'sh')}<think>a\nb</think>\n{fenced(APP)}", ONE, attachments=("commands.sh",)
    ),
    "think tags in code": Case(
        fenced(f'{APP}P = """\n<think>\n</think>\n"""\n'),
        {"main.py": f'{APP}P = """\n<think>\n</think>\n"""\n'},
    ),
    # names
    "title": Case(fenced(APP, 'python title="server.py"'), {"server.py": APP}, "server.py"),
    "filename": Case(fenced(APP, "py filename=src/server.py"), {"src/server.py": APP}, "src/server.py"),
    "pandoc": Case(fenced(APP, "{.python file='server.py'}"), {"server.py": APP}, "server.py"),
    "colon": Case(fenced(APP, "python:app/server.py"), {"app/server.py": APP}, "app/server.py"),
    "info is the name": Case(fenced(APP, "server.py"), {"server.py": APP}, "server.py"),
    "word in the info": Case(fenced(APP, "python server.py"), {"server.py": APP}, "server.py"),
    "heading": Case(f"### 1. `server.py`\n\n{fenced(APP)}", {"server.py": APP}, "server.py"),
    "bold": Case(f"**File: server.py**\n{fenced(APP)}", {"server.py": APP}, "server.py"),
    "quoted": Case(f"`./server.py`:\n{fenced(APP)}", {"server.py": APP}, "server.py"),
    "item": Case(f"1. **server.py**\n\n{fenced(APP, indent='   ')}", {"server.py": APP}, "server.py"),
    "sentence": Case(f"Save this as `server.py`:\n{fenced(APP)}", {"server.py": APP}, "server.py"),
    "comment": Case(
        fenced("# app/server.py\n" + APP), {"app/server.py": "# app/server.py\n" + APP}, "app/server.py"
    ),
    "docstring": Case(
        fenced('"""server.py - serves."""\n' + APP),
        {"server.py": '"""server.py - serves."""\n' + APP},
        "server.py",
    ),
    "comment that tells": Case(fenced("# server.py is it\n" + APP), {"main.py": "# server.py is it\n" + APP}),
    "sentence that mentions": Case(f"Unlike in `server.py` we see\n{fenced(APP)}", ONE),
    "name of the file that commands use": Case(
        f"{fenced(APP)}**Run `server.py`:**\n{fenced(PIP, 'bash')}", ONE, attachments=("commands.sh",)
    ),
    "windows path": Case(fenced(APP, "python title=app\\server.py"), {"app/server.py": APP}, "app/server.py"),
    "title is no path": Case(fenced(APP, 'python title="My server"'), ONE),
    # roles
    "package": Case(
        "".join(f"**{path}**\n{fenced(text)}" for path, text in PACKAGE.items()), PACKAGE, "app/main.py"
    ),
    "client": Case(fenced(APP) + fenced(CLIENT), ONE, clients=("client.py",), note="only uses the app"),
    "two clients": Case(
        fenced(CLIENT) + fenced(APP) + fenced("from main import app\nprint(app)\n"),
        ONE,
        clients=("client.py", "client_2.py"),
    ),
    "named client": Case(fenced(APP) + fenced(CLIENT, "python title=try_it.py"), ONE, clients=("try_it.py",)),
    "imported client": Case(
        fenced("import remote\n" + APP) + fenced(CLIENT, "python title=remote.py"),
        {"remote.py": CLIENT, "main.py": "import remote\n" + APP},
    ),
    "second version": Case(fenced(APP) + "Better:\n" + fenced(APP2), {"main.py": APP2}, note="replaced"),
    "second version of a named file": Case(
        fenced(APP, "server.py") + fenced(APP2, "server.py"),
        {"server.py": APP2},
        "server.py",
        note="replaced",
    ),
    "second version without the name": Case(
        fenced(APP, "server.py") + fenced(APP2), {"server.py": APP2}, "server.py", note="replaced"
    ),
    "second version with a name": Case(
        fenced(APP) + fenced(APP2, "server.py"), {"server.py": APP2}, "server.py", note="replaced"
    ),
    "fragment shown afterwards": Case(fenced(APP) + fenced("app = FastAPI()\n"), ONE, note="fragment"),
    "steps before the whole": Case(fenced("app = FastAPI()\n") + fenced(APP), ONE, note="replaced"),
    "second version cut off": Case(f"{fenced(APP)}```python\n{APP2}", ONE, note="cut off", truncated=True),
    "another app": Case(
        fenced(APP) + fenced(APP.replace("app", "other").replace("fastother", "fastapi")),
        ONE,
        note="another app",
    ),
    "two named apps": Case(
        fenced(APP, "admin.py") + fenced(APP, "main.py"), {"admin.py": APP, "main.py": APP}, note="among 2"
    ),
    "one app imports the other": Case(
        fenced("import sub\n" + APP, "top.py") + fenced(APP, "sub.py"),
        {"top.py": "import sub\n" + APP, "sub.py": APP},
        "top.py",
    ),
    "test with an app": Case(fenced(APP) + fenced(APP2, "test_it.py"), {"test_it.py": APP2, "main.py": APP}),
    "helpers without a name": Case(fenced(APP) + fenced(MODELS), ONE, note="left out"),
    "app in a comment": Case(fenced("# app = FastAPI()\n" + MODELS) + fenced(APP), ONE),
    "attachments": Case(
        fenced(APP)
        + fenced("fastapi==0.115\nuvicorn[standard]>=0.30\n", "txt")
        + fenced("FROM python:3.12\nRUN pip install fastapi\n", "dockerfile")
        + fenced("services:\n  api:\n    build: .\n", "yaml")
        + fenced(PIP, "bash")
        + fenced("$ uvicorn main:app\n", ""),
        ONE,
        attachments=("requirements.txt", "Dockerfile", "docker-compose.yml", "commands.sh", "commands_2.sh"),
        note="never run",
    ),
    "commands as python": Case(fenced(PIP) + fenced(APP), ONE, attachments=("commands.sh",)),
    "session": Case(fenced(">>> app = FastAPI()\n>>> app\n") + fenced(APP), ONE, note="is session"),
    "data file": Case(
        fenced(APP) + fenced('{"a": 1}\n', "json title=config.json") + fenced('{"b": 2}\n', "json"),
        {"config.json": '{"a": 1}\n', "main.py": APP},
    ),
    "example of the environment": Case(
        fenced(APP) + fenced("TOKEN=\n", "env title=.env.example"), ONE, attachments=(".env.example",)
    ),
    "main is taken": Case(
        fenced("import app\n", "main.py") + fenced(APP), {"main.py": "import app\n", "app.py": APP}, "app.py"
    ),
    "a file that is a folder": Case(
        fenced(APP, "main.py") + fenced(MODELS, "python title=main.py/x.py"),
        ONE,
        note="another file or folder",
    ),
    "injected note": Case(fenced(APP, 'python title="/\x7f\u202e.py"'), ONE, note=r"\\u202e"),
}


@pytest.mark.parametrize("case", PROGRAMS.values(), ids=PROGRAMS)
def test_program(case: Case) -> None:
    found = extract(case.answer)
    assert isinstance(found, Program), found
    assert {file.path: file.text for file in found.files} == case.files
    assert found.main == case.main
    assert tuple(file.path for file in found.attachments) == case.attachments
    assert tuple(file.path for file in found.clients) == case.clients
    assert found.truncated is case.truncated
    assert case.note in "\n".join(found.notes)
    assert found.notes


NOTHING = {
    "empty": ("", "empty", "0 bytes"),
    "white space": (b" \r\n\t\n", "empty", "white space"),
    "only colours": ("\x1b[0m\x1b[1m", "empty", "white space"),
    "only thoughts": ("<think>\nWell</think>", "empty", "thoughts"),
    "cut while thinking": (f"<think>\nWell,\n{fenced(APP)}", "empty", "still thinking"),
    "40 MB": (b"x" * 40_000_000, "too large", "40,000,000 bytes"),
    "40 million characters": ("x" * 40_000_000, "too large", "40,000,000 characters"),
    "too many bytes, not characters": ("é" * 3_000_000, "too large", "6,000,000 bytes"),
    "one huge program": (fenced(APP + "#" * 1_100_000 + "\n"), "too large", "main.py has"),
    "zeros": (bytes(5000), "not text", "5,000 of 5,000"),
    "binary": (bytes(range(256)) * 40, "not text", "control characters"),
    "5,000 fences": (fenced(APP) * 5000, "too many fences", "more than 500"),
    "5,000 fences in markdown": (f"````md\n{fenced(APP) * 5000}````", "too many fences", "more than 500"),
    "prose": ("I cannot help with FastAPI() today.", "no code", "6 words"),
    "prose with imports": (
        "First\nimport the packages\nThen call FastAPI(\nGood luck\nBye",
        "no code",
        "words",
    ),
    "commands alone": (fenced(PIP, "bash") + fenced("{}\n", "json"), "no code", "1 shell, 1 data"),
    "session alone": (fenced(">>> FastAPI()\n", "pycon"), "no code", "1 session"),
    "empty block": ("```python\n```", "no code", "no code block"),
    "client alone": (fenced(CLIENT), "no entry", "1 pieces of Python with 3 lines"),
    "bare code of another kind": (CLIENT, "no entry", "FastAPI("),
    "app in a comment only": (fenced("# app = FastAPI()\nimport os\n"), "no entry", "FastAPI"),
    "indented code": ("Text\n\n        ```python\n        FastAPI()\n        ```\n", "no code", "words"),
}


@pytest.mark.parametrize(("answer", "reason", "detail"), NOTHING.values(), ids=NOTHING)
def test_no_program(answer: str | bytes, reason: str, detail: str) -> None:
    found = extract(answer)
    assert isinstance(found, NoProgram), found
    assert found.reason == reason
    assert detail in found.detail


UNSAFE = (
    "../main.py",
    "a/../../main.py",
    "/etc/main.py",
    "\\\\host\\main.py",
    "C:\\main.py",
    "C:main.py",
    "~/main.py",
    ".bashrc.py",
    ".git/hooks.py",
    "a//b.py",
    "a/./b.py",
    "a\x00b/c.py",
    "x" * 98 + ".py",
    "-rf/x.py",
)


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names_are_refused(name: str) -> None:
    found = extract(fenced(APP, f'python title="{name}"'))
    assert isinstance(found, Program)
    assert [file.path for file in found.files] == ["main.py"]
    assert "was refused" in "\n".join(found.notes)


def test_other_kinds_of_program_have_other_entries() -> None:
    found = extract(
        fenced(APP) + fenced("from flask import Flask\nweb = Flask(__name__)\n"), entry=r"Flask\("
    )
    assert isinstance(found, Program)
    assert "web" in found.source


def test_files_beyond_the_limits_are_left_out() -> None:
    many = fenced(APP) + "".join(fenced(MODELS, f"python title=m{number}.py") for number in range(60))
    found = extract(many)
    assert isinstance(found, Program)
    assert len(found.files) == 50
    assert found.main in {file.path for file in found.files}
    big = fenced(APP) + fenced("#" * 600_000 + "\n", "a.py") + fenced("#" * 600_000 + "\n", "b.py")
    found = extract(big)
    assert isinstance(found, Program)
    assert {file.path for file in found.files} == {"a.py", "main.py"}
    assert "at most 50 files and 1,048,576 bytes" in "\n".join(found.notes)


def test_prose_is_what_stands_outside_the_code() -> None:
    found = extract(f"Before.\n{fenced(APP)}After.")
    assert isinstance(found, Program)
    assert found.prose == "Before.\nAfter."


HOSTILE = {
    "spaces": "a" + " " * 1_000_000,
    "lines": "a" + "\n" * 1_000_000,
    "escapes": "a" * 99 + "\x1b[0" * 300_000,
    "thoughts": "</think> " * 100_000 + "<think>" * 100_000,
    "lists": "\n".join("  " * depth + "- x" for depth in range(700)) + "\n    ``` `\n" * 40_000,
    "open": "```a\n" * 200_000,
    "info": "```" + "a=" * 500_000,
    "imports": "".join(
        fenced(CLIENT + f"from x import a{number}\n" * 90, f"python title=a{number}.py")
        for number in range(499)
    )
    + fenced(APP),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_hostile_megabytes_take_no_time(answer: str) -> None:
    started = time.process_time()
    extract(answer)
    assert time.process_time() - started < 20  # a second at most; what grows with the square takes minutes


PARTS = st.sampled_from(
    (
        *(
            "```",
            "````",
            "~~~",
            "python",
            "py title=",
            "`",
            "**",
            "# ",
            "- ",
            "1. ",
            "   ",
            "\t",
            "\n",
            "\n\n",
            "\r\n",
        ),
        *(
            "<think>",
            "</think>",
            "\x1b[31m",
            "\ufeff",
            "\x00",
            "markdown\n",
            "bash\n",
            "../",
            "/",
            "\\",
            "C:",
            "..py",
        ),
        *(
            "main.py",
            "app/",
            ".env",
            ".env.example",
            "Dockerfile",
            APP,
            CLIENT,
            MODELS,
            PIP,
            "app = FastAPI()\n",
            "\ud800",
        ),
    )
)
ANSWERS = st.one_of(
    st.text(), st.binary(), st.lists(st.one_of(PARTS, st.text(max_size=5)), max_size=40).map("".join)
)
SAFE = re.compile(r"(?:\w[\w.-]*/)*(?:\w[\w.-]*|\.env\.example)", re.ASCII)


@settings(deadline=None, max_examples=300)
@given(answer=ANSWERS)
def test_any_answer_gives_a_safe_program_or_a_reason(answer: str | bytes) -> None:
    found = extract(answer)
    assert found == extract(answer)
    if isinstance(found, NoProgram):
        assert found.detail
        return
    everything = (*found.files, *found.attachments, *found.clients)
    paths = [file.path for file in everything]
    assert len(set(paths)) == len(paths) <= 50
    assert all(SAFE.fullmatch(path) and len(path) <= 100 for path in paths)
    assert "FastAPI(" in found.source
    assert sum(len(file.text.encode()) for file in everything) <= 1024 * 1024
    assert all(note.isprintable() for note in found.notes)
