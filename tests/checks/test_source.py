"""Every check of a program's text, on a source that passes and on sources that fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from reading_sources import evidence_of, read

from pytest_qwen.checks import configuration, documentation, practices, source
from pytest_qwen.observations import Evidence
from pytest_qwen.programs import NoProgram, Program, SourceFile
from pytest_qwen.sandbox.inside.analyse.__main__ import NOTHING
from pytest_qwen.scorecards import CheckOutcome, Finding

Check = Callable[[Evidence], Finding]

HEAD = """
from fastapi import FastAPI, File, UploadFile
from transformers import pipeline
app = FastAPI()
pipe = pipeline("image-classification", model="Falconsai/nsfw_image_detection")
"""
ASYNC = "@app.post('/predict')\nasync def predict(file: UploadFile):\n"
LAZY = "def get():\n    global pipe\n    if pipe is None:\n        pipe = pipeline('image-classification')\n    return pipe\n"
LONG = "def f():\n" + "".join(f"    x{n} = {n}\n" for n in range(61))
TWICE = "def f{}():\n" + "".join(f"    call({n})\n" for n in range(10))
CORS = "app.add_middleware(CORSMiddleware, allow_origins={}, allow_credentials={})"
LOGS = "import logging\nlog = logging.getLogger()\n"
DIRECT = LOGS + "m = AutoModelForImageClassification.from_pretrained('x')\n"

# check · source that passes (or source and further texts) · sources that fail, with a part of what is said
TREE: list[tuple[Check, list[Any], list[tuple[Any, str]]]] = [
    (
        source.uses_the_model,
        [
            HEAD,
            "M = 'Falconsai/nsfw_image_detection'\nX.from_pretrained(M)",
            "import os\nX.from_pretrained(os.getenv('M', 'Falconsai/nsfw_image_detection'))",
            "import os\nX.from_pretrained(os.environ.get('M') or 'Falconsai/nsfw_image_detection')",
            "class S(BaseSettings):\n    model: str = 'Falconsai/nsfw_image_detection'\ns = S()\npipeline('t', model=s.model)",
            "class S(BaseSettings):\n    m: str = Field(default='Falconsai/nsfw_image_detection')\npipeline('t', s.m)",
            "def load(m='Falconsai/nsfw_image_detection'):\n    return X.from_pretrained(m)",
            "def load(m):\n    return X.from_pretrained(m)\nload('Falconsai/nsfw_image_detection')",
            "class C:\n    def __init__(self, m):\n        self.m = m\n    def load(self):\n        return pipeline(model=self.m)\nC('Falconsai/nsfw_image_detection')",
            "ORG = 'Falconsai'\nX.from_pretrained(f'{ORG}/nsfw_image_detection')",
            "M = 'Falconsai/nsfw_image_detection'\nawait_ = to_thread(pipeline, 'image-classification', M)",
        ],
        [
            ("x = 1", "no call of pipeline"),
            (
                "pipeline('image-classification', model='google/vit')",
                "main.py:1 pipeline loads google/vit instead",
            ),
            ("X.from_pretrained(compute())", "not in the source"),
            ("NAME = 'Falconsai/nsfw_image_detection'\nX.from_pretrained('other')", "loads other"),
        ],
    ),
    (
        source.can_be_started,
        [
            HEAD + "if __name__ == '__main__':\n    uvicorn.run(app)",
            (HEAD, {"prose": "Run it:\n\n    uvicorn main:app --reload\n"}),
            (HEAD, {"prose": "Start it with `fastapi run main.py`."}),
            (HEAD, {"Dockerfile": 'FROM python\nCMD ["uvicorn", "main:app"]\n'}),
            "def create_app():\n    return FastAPI()\n# uvicorn main:create_app --factory",
            "def make():\n    a = FastAPI()\n    return a\napi = make()\n# uvicorn main:api",
            "server: FastAPI = FastAPI()\n# python -m uvicorn main:server",
        ],
        [
            ("x = 1", "no app object"),
            (HEAD, "nothing says how to start it"),
            ("app = Flask(__name__)\nif __name__ == '__main__':\n    app.run()", "not ASGI"),
            ("if __name__ == '__main__':\n    app = FastAPI()\n    uvicorn.run(app)", "no app object"),
            ("one = FastAPI()\ntwo = FastAPI()\n# uvicorn main:one", "no app object"),
        ],
    ),
    (
        source.lists_its_dependencies,
        [
            (
                "from PIL import Image\nimport numpy",
                {"requirements_txt": "Pillow==11.0\nnumpy>=2 # numbers\n"},
            ),
            ("import torch, os", {"prose": "```\n$ pip install torch\n```"}),
            (HEAD + ASYNC + "    pass", {"prose": "`pip install 'fastapi[standard]' transformers`"}),
            (
                "try:\n    import redis\nexcept ImportError:\n    redis = None",
                {"prose": "pip install fastapi"},
            ),
            ("import pydantic", {"pyproject.toml": '[project]\ndependencies = ["fastapi>=0.1"]\n'}),
            (
                "import torch",
                {"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.11"\ntorch = "^2.6"\n'},
            ),
        ],
        [
            ("import os", "no list of dependencies"),
            (("import torch\nimport PIL", {"requirements_txt": "torch\n"}), "main.py:2 imports PIL"),
            ((HEAD + ASYNC + "    pass", {"prose": "pip install fastapi transformers"}), "python-multipart"),
        ],
    ),
    (
        source.is_complete,
        [
            HEAD,
            "class A(ABC):\n    @abstractmethod\n    def f(self): ...",
            "class A(Protocol):\n    def f(self): ...",
            "class Wrong(Exception):\n    pass",
            "todo_list = 1\nprint(todo_list)",
        ],
        [
            ("def f():\n    pass", "main.py:1 the body of f does nothing"),
            ("def f():\n    '''Say.'''\n    ...", "f does nothing"),
            ("def f():\n    raise NotImplementedError('later')", "f does nothing"),
            ("x = 1  # TODO: more", "TODO"),
            ("x = 1\n# Your code here", "Your code here"),
            ("x = 1\n# ... rest of the code", "rest of the code"),
            ("x = 1\nExplanation", "dangling text"),
        ],
    ),
    (
        practices.b1_source,
        [
            HEAD + "@app.post('/predict')\ndef predict(file: UploadFile):\n    return pipe(file.file)",
            HEAD + ASYNC + "    return await run_in_threadpool(pipe, await file.read())",
            HEAD + ASYNC + "    return await asyncio.to_thread(lambda: pipe(1))",
            HEAD
            + "def work(i):\n    return pipe(i)\n"
            + ASYNC
            + "    return await loop.run_in_executor(None, work, 1)",
            HEAD
            + "def work(i):\n    return pipe(i)\n"
            + ASYNC
            + "    return await loop.run_in_executor(None, partial(work, 1))",
            HEAD
            + "async def worker():\n    await to_thread(pipe, 1)\n"
            + ASYNC
            + "    await queue.put(file)",
        ],
        [
            (
                HEAD + ASYNC + "    return pipe(await file.read())",
                "main.py:8 pipe() runs in the event loop of predict",
            ),
            (
                HEAD + "def work(i):\n    return pipe(i)\n" + ASYNC + "    return work(1)",
                "main.py:7 pipe() runs",
            ),
            (
                HEAD
                + "def work(i):\n    return pipe(i)\n"
                + ASYNC
                + "    await loop.run_in_executor(None, work(1))",
                "pipe() runs",
            ),
            (HEAD + ASYNC + "    return other(file)", "hands its work to no thread"),
            (HEAD, "no handler"),
            (
                "class S:\n    def __init__(self):\n        self.m = AutoModel.from_pretrained('x').to('cpu').eval()\n"
                "    def run(self, i):\n        return self.m(**i)\ns = S()\n"
                + ASYNC
                + "    return s.run(1)",
                "self.m() runs in the event loop",
            ),
            (
                "async def lifespan(app):\n    app.state.clf = await to_thread(pipeline, 'image-classification')\n    yield\n"
                + ASYNC
                + "    return app.state.clf(1)",
                "app.state.clf() runs",
            ),
            (
                "def get():\n    return pipeline('image-classification')\n@app.post('/p')\n"
                "async def predict(file: UploadFile, m=Depends(get)):\n    return m(1)",
                "m() runs in the event loop",
            ),
        ],
    ),
    (
        practices.b2_source,
        [
            HEAD + ASYNC + "    return pipe(1)",
            "class C:\n    def __init__(self):\n        self.m = pipeline('t')\nc = C()\n@app.get('/')\n"
            "async def f(a: Annotated[C, Depends(ready)]):\n    b: C = c\n    return isinstance(b, C)",
            "pipe = None\n" + LAZY + ASYNC + "    return get()(1)",
            "@lru_cache\ndef get():\n    return pipeline('image-classification')\n"
            + ASYNC
            + "    return get()(1)",
            "def get():\n    if pipe:\n        return pipe\n    return pipeline('image-classification')\n"
            + ASYNC
            + "    get()",
        ],
        [
            (
                HEAD + ASYNC + "    return pipeline('image-classification')(1)",
                "main.py:8 loads a model when predict is called",
            ),
            (
                "def get():\n    return X.from_pretrained('x')\n" + ASYNC + "    return get()(1)",
                "main.py:2 loads a model",
            ),
            (
                "class C:\n    def __init__(self):\n        self.m = pipeline('t')\n"
                + ASYNC
                + "    to_thread(C)",
                "loads",
            ),
            (
                "def get():\n    return X.from_pretrained('x')\n@app.get('/')\ndef f(m=Depends(get)):\n    return m(1)",
                "loads",
            ),
            (ASYNC + "    return 1", "no call loads a model"),
            (HEAD, "no handler"),
        ],
    ),
    (
        practices.has_a_lifespan,
        ["app = FastAPI(title='x', lifespan=lifespan)", "app.router.lifespan_context = lifespan"],
        [
            (HEAD, "no lifespan"),
            ("@app.on_event('startup')\ndef f():\n    x()", "main.py:1 on_event is deprecated"),
        ],
    ),
    (
        practices.is_annotated,
        [
            "def f(a: int, *rest) -> int:\n    return a",
            "class A:\n    def f(self) -> None:\n        x()\ndef _g(a):\n    x()",
        ],
        [
            ("def f(a):\n    return a", "0 of 2"),
            ("def f(a: int):\n    return a", "main.py:1 f: return"),
            ("x = 1", "no public"),
        ],
    ),
    (
        documentation.has_module_docstring,
        ['"""It serves."""\nx = 1'],
        [("x = 1", "main.py has no docstring")],
    ),
    (
        documentation.has_docstrings,
        [
            "def f():\n    '''Do.'''\nclass A:\n    '''Be.'''\n    class Config:\n        x = 1\ndef _g():\n    x()"
        ],
        [("def f():\n    '''Do.'''\ndef g():\n    x()", "1 of 2"), ("x = 1", "no public function")],
    ),
    (
        documentation.tells_how_to_run,
        [
            ("x = 1", {"prose": "1. `pip install -r requirements.txt`\n2. `uvicorn main:app`"}),
            ("x = 1", {"run.sh": "pip install fastapi && python main.py"}),
            ("# pip install fastapi\n# Run: see below\n#   uvicorn main:app", {}),
        ],
        [
            ("x = 1", "no install and no start command"),
            (
                ("x = 1", {"prose": "You can use pip install to install it, then run uvicorn."}),
                "no install and no start",
            ),
            (("x = 1", {"prose": "    pip install fastapi"}), "no start command"),
            (("x = 1", {"prose": "`pip install x`, and `uvicorn --workers 4` for more"}), "no start command"),
        ],
    ),
    (
        configuration.is_configurable,
        [
            "import os\nM = os.getenv('M')",
            "import os\nM = os.environ['M']",
            "class S(BaseSettings):\n    m: str = 'x'",
        ],
        [("M = 'x'", "nothing can be configured"), ("import os\nos.environ['HF_HOME'] = '/tmp'", "nothing")],
    ),
    (
        configuration.is_not_for_development,
        [
            HEAD,
            "uvicorn.run('main:app', reload=settings.debug)",
            CORS.format("['*']", "False"),
            CORS.format("['x.org']", "True"),
        ],
        [
            ("uvicorn.run('main:app', reload=True)", "main.py:1 uvicorn.run(reload=True)"),
            ("app = FastAPI(debug=True)", "FastAPI(debug=True)"),
            (CORS.format("['*']", "True"), "every origin"),
            ("ORIGINS = ['*']\n" + CORS.format("ORIGINS", "True"), "main.py:2"),
        ],
    ),
    (
        configuration.pins_its_dependencies,
        [
            ("", {"requirements_txt": "a==1\nb==2\nc==3\nd[x]==4\ne>=5\n"}),
            ("", {"prose": "pip install a==1"}),
            ("", {"requirements_txt": "a==1\n", "prose": "pip install a b c"}),
        ],
        [
            ("", "no list"),
            (("", {"requirements_txt": "a==1\nb>=2\nc==3\n"}), "2 of 3 dependencies are pinned, not b"),
            (("", {"prose": "pip install a b"}), "0 of 2"),
        ],
    ),
    (
        configuration.bounds_its_work,
        [
            "e = ThreadPoolExecutor(max_workers=2)\nloop.run_in_executor(e, f)",
            "s = asyncio.Semaphore(4)\nasync def f():\n    async with s:\n        x()",
            "q = asyncio.Queue(maxsize=10)\nq.put(1)",
            "uvicorn.run(app, limit_concurrency=10)",
        ],
        [
            ("x = 1", "nothing bounds"),
            ("e = ThreadPoolExecutor()\ne.submit(f)", "nothing bounds"),
            ("q = asyncio.Queue()\nq.put(1)", "nothing bounds"),
            ("s = asyncio.Semaphore(4)", "never used"),
        ],
    ),
]

LINT: list[tuple[Check, list[Any], list[tuple[Any, str]]]] = [
    (
        source.names_are_defined,
        ["import os\nprint(os.name)"],
        [
            ("def f():\n    return image_url", "main.py:2 Undefined name `image_url` (F821)"),
            ("import os\nimport os\nos.x", "F811"),
            ("x = {'a': 1, 'a': 2}", "F601"),
        ],
    ),
    (
        practices.never_blocks,
        ["async def f():\n    return 1", "import requests\ndef f():\n    return requests.get('x')"],
        [
            ("import requests\nasync def f():\n    return requests.get('x')", "main.py:3"),
            ("import time\nasync def f():\n    time.sleep(1)  # noqa", "ASYNC251"),
        ],
    ),
    (
        practices.b5_source,
        [
            "try:\n    f()\nexcept ValueError as e:\n    raise KeyError from e",
            "try:\n    f()\nexcept:\n    raise",
        ],
        [
            ("try:\n    f()\nexcept:\n    x = 1", "main.py:3 a bare except"),
            ("try:\n    f()\nexcept Exception:\n    x = 1", "BLE001"),
            ("try:\n    f()\nexcept ValueError:\n    raise KeyError('x')", "B904"),
        ],
    ),
    (
        practices.is_secure,
        [
            "import uvicorn\nuvicorn.run('main:app', host='0.0.0.0')",
            "assert x",
        ],
        [
            ("import requests\nrequests.get('x')", "S113"),
            ("password = 'hunter2hunter2'", "S105"),
            ("import pickle\npickle.loads(b'')", "main.py:2"),
        ],
    ),
    (
        practices.is_simple,
        [
            "def f():\n    return 1",
            'def f():\n    """Long.\n' + "\n" * 70 + '    """\n    return 1',
            LONG.replace("    x60 = 60\n", "").replace("    x59 = 59\n", ""),
        ],
        [
            (LONG, "main.py:1 f has 62 lines"),
            (TWICE.format(1) + TWICE.format(2), "repeats 10 lines of main.py:2"),
            ("def f(x):\n" + "".join(f"    if x == {n}:\n        g()\n" for n in range(11)), "C901"),
        ],
    ),
    (
        practices.logs_and_infers_well,
        [
            LOGS + HEAD + "def f(i):\n    return pipe(i)",
            DIRECT + "def f(i):\n    with torch.no_grad():\n        return m(**i)",
            DIRECT + "@torch.inference_mode()\ndef f(i):\n    return m(**i)",
        ],
        [
            (HEAD, "no logging"),
            (LOGS + "print('x')", "T201"),
            (DIRECT + "def f(i):\n    return m(**i)", "main.py:5 calls the model without no_grad"),
        ],
    ),
    (
        practices.is_idiomatic,
        [
            "from fastapi import FastAPI, File, UploadFile\napp = FastAPI()\n@app.post('/')\ndef f(file: UploadFile = File(...)):\n    x()",
        ],
        [
            ("def f(a=[]):\n    return a", "B006"),
            (
                "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/{x}')\ndef f():\n    return 1",
                "FAST003",
            ),
            ("def f(x):\n    r = []\n    for i in x:\n        r.append(i + 1)\n    return r", "PERF401"),
        ],
    ),
]


def cases(table: list[tuple[Check, list[Any], list[tuple[Any, str]]]], *, good: bool) -> list[Any]:
    return [
        pytest.param(check, text, said, id=f"{check.__name__}-{number}")
        for check, passing, failing in table
        for number, (text, said) in enumerate([(text, "") for text in passing] if good else failing)
    ]


def judge(check: Check, text: Any, *, lint: bool) -> Finding:
    code, more = text if isinstance(text, tuple) else (text, {})
    finding = check(read(code, lint=lint, **more))
    assert 0 < len(finding.evidence) <= 200
    assert "\n" not in finding.evidence
    return finding


@pytest.mark.parametrize(("check", "text", "said"), cases(TREE, good=True))
def test_a_good_tree_passes(check: Check, text: Any, said: str) -> None:
    finding = judge(check, text, lint=False)
    assert finding.outcome is CheckOutcome.PASS, finding.evidence


@pytest.mark.parametrize(("check", "text", "said"), cases(TREE, good=False))
def test_a_bad_tree_fails_and_says_where(check: Check, text: Any, said: str) -> None:
    finding = judge(check, text, lint=False)
    assert finding.outcome is CheckOutcome.FAIL, finding.evidence
    assert said in finding.evidence


@pytest.mark.parametrize(("check", "text", "said"), cases(LINT, good=True))
def test_clean_code_passes(check: Check, text: Any, said: str) -> None:
    finding = judge(check, text, lint=True)
    assert finding.outcome is CheckOutcome.PASS, finding.evidence


@pytest.mark.parametrize(("check", "text", "said"), cases(LINT, good=False))
def test_what_ruff_finds_fails_and_says_where(check: Check, text: Any, said: str) -> None:
    finding = judge(check, text, lint=True)
    assert finding.outcome is CheckOutcome.FAIL, finding.evidence
    assert said in finding.evidence


EVERY = [check for check, _, _ in [*TREE, *LINT]] + [source.parses]


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.__name__)
def test_without_a_program_everything_fails_with_its_reason(check: Check) -> None:
    finding = check(evidence_of({}, program=NoProgram(reason="no code", detail="0 fences")))
    assert finding.outcome is CheckOutcome.FAIL
    assert "no code" in finding.evidence


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.__name__)
def test_what_the_harness_broke_is_not_the_programs_fault(check: Check) -> None:
    assert check(evidence_of({}, infra_errors=("engine gone",))).outcome is CheckOutcome.INFRA_ERROR
    assert check(evidence_of({})).outcome is CheckOutcome.UNMEASURED


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.__name__)
def test_what_needs_the_tree_fails_where_there_is_none(check: Check) -> None:
    error = {"path": "main.py", "line": 14, "kind": "SyntaxError", "message": "invalid syntax"}
    finding = check(evidence_of(NOTHING | {"parse": {"ok": False, "errors": [error]}}))
    assert finding.outcome is CheckOutcome.FAIL
    if check not in (documentation.tells_how_to_run, configuration.pins_its_dependencies):
        assert finding.evidence == "source does not parse: main.py:14 invalid syntax"


def test_a_parsing_program_parses() -> None:
    assert source.parses(read("x = 1")).outcome is CheckOutcome.PASS


def test_a_program_that_was_cut_off_is_not_whole() -> None:
    file = SourceFile(path="main.py", text="x = 1\n", language="python")
    cut = Program(files=(file,), main="main.py", truncated=True)
    finding = source.parses(evidence_of(dict(read("x = 1").source), program=cut))
    assert finding.outcome is CheckOutcome.FAIL
    assert "cut off" in finding.evidence


@pytest.mark.parametrize("check", [check for check, _, _ in LINT], ids=lambda check: check.__name__)
def test_without_ruff_its_findings_are_unmeasured(check: Check) -> None:
    finding = check(read("x = 1"))
    assert finding.outcome is CheckOutcome.UNMEASURED


def test_an_analysis_that_gave_up_is_unmeasured() -> None:
    facts = dict(read("x = 1").source) | {"failures": ["tree: timeout"]}
    assert practices.b1_source(evidence_of(facts)).outcome is CheckOutcome.UNMEASURED


def test_naming_the_harness_is_tampering() -> None:
    assert source.leaves_the_harness_alone(read("x = 'pytest_qwen'")).outcome is CheckOutcome.TAMPER
    assert source.leaves_the_harness_alone(read("x = 'pytest'")).outcome is CheckOutcome.PASS


def test_an_undefined_name_counts_double_on_the_predict_path() -> None:
    helper = "def fetch():\n    return image_url\n"
    on_path = read(HEAD + helper + ASYNC + "    return pipe(fetch())", lint=True)
    off_path = read(HEAD + helper + ASYNC + "    return pipe(1)", lint=True)
    assert source.undefined_on_predict_path(on_path) == "main.py:7 Undefined name `image_url` (F821)"
    assert source.undefined_on_predict_path(off_path) is None
