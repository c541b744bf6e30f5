"""Imports only point down, heavy packages stay out until used, and the page on architecture agrees."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pytest_qwen"

# Lowest first; a module imports from its own row and from those before it. A package stands for its modules.
LAYERS = {
    "words": "errors outcomes streams streaming levels bounds evidence verdicts metrics statistics laws evalues guards clusters noise "
    "gpus models configurations prices cost roofline memory training_memory physics "
    "programs exchanges observations scorecards escaping pass_at_k environments paired correctness",
    "adapt": "engines detect data readers extraction battery harness harness_lm harness_quiet generators",
    "ask": "markers parsing presets workloads ask settings target loading",
    "run": "locks pool sentinel measure slices pairs sandbox probing openapi serving deep analysis standin",
    "judge": "judge deciding error_rates planning capacity optimization calibration published claims claims_arithmetic claims_physics recomputed standing "
    "checks rubric lifts star_texts agreement star_verdicts accuracy_verdicts",
    "records": "records quality_records",
    "reports": "reports progress",
    "work": "bench run recorded_loads comparing load_search searching llm finetuning replay beside ledger plan_run scenarios rating grading stars accuracy",
    "glue": "plugin session items showing workshop fixture_makers settling recording live hookspecs cli cli_plan testing mock_server proxy",
}
ROW = {module: row for row, modules in enumerate(LAYERS.values()) for module in modules.split()}
# What is not in the standard library, and who may import it.
ENGINE_CHILD = {
    "building",
    "kv_cache",
    "decode",
    "device",
    "dummy_weights",
    "fusion",
    "profiles",
    "quantize",
    "sessions",
    "scoring",
    "sources",
    "tokenizing",
    "training",
    "training_methods",
    "training_peak",
    "transformers_",
}
ALLOWED = {
    "pytest": {
        "markers",
        "parsing",
        "ask",
        "settings",
        "plugin",
        "session",
        "items",
        "showing",
        "workshop",
        "fixture_makers",
        "settling",
        "recording",
        "live",
        "testing",
    },
    "torch": {f"engines.{name}" for name in ENGINE_CHILD} | {"sandbox.inside.standin"},
    "transformers": {f"engines.{name}" for name in ENGINE_CHILD} | {"sandbox.inside.standin"},
    "lm_eval": {"harness", "harness_lm"},
    "datasets": {"harness_quiet"},
    "huggingface_hub": {"harness_quiet"},
    "evaluate": {"harness_quiet"},
    "docker": {f"sandbox.{name}" for name in ("container", "engines", "image", "attacks.canary")},
    "requests": {"sandbox.container", "sandbox.engines"},
    "urllib3": {"sandbox.container"},
    # installed in the guest image, where these scripts run
    "h11": {"sandbox.inside.probe"},
    "schemathesis": {"sandbox.inside.deep"},
    "numpy": {"engines.dummy_gguf", "sandbox.inside.standin"},
    "gguf": {"engines.dummy_gguf"},
    "xllamacpp": {"engines.llama_server"},
    "PIL": {"sandbox.inside.standin"},
    "safetensors": {"engines.sources", "sandbox.inside.standin"},
}


def modules() -> dict[str, Path]:
    """Every module of the package by its name in the table's terms: "errors", "engines.child", "engines"."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = file
    del found["__init__"]  # the marks' names, resolved on first use
    return found


class _Imports(ast.NodeVisitor):
    """The modules that a file imports when it runs; what only type checkers read is left out."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "relative imports hide where they point"
        of_package = node.module == "pytest_qwen" or f"{node.module}.".startswith("pytest_qwen.")
        self.names |= {
            f"{node.module}.{alias.name}" if of_package else str(node.module) for alias in node.names
        }


def imports_of(file: Path) -> set[str]:
    visitor = _Imports()
    visitor.visit(ast.parse(file.read_text()))
    return visitor.names


def ours_in(names: set[str]) -> Iterator[str]:
    """The row names among imported names: "pytest_qwen.errors.Misuse" → "errors"."""
    for name in names:
        first, _, rest = name.partition(".")
        if first == "pytest_qwen" and rest.split(".")[0] in ROW:
            yield rest.split(".")[0]


def test_every_module_has_a_row_and_every_row_its_modules() -> None:
    assert {name.split(".")[0] for name in modules()} == set(ROW)


@pytest.mark.parametrize("name", modules())
def test_imports_point_down(name: str) -> None:
    row = ROW[name.split(".", maxsplit=1)[0]]
    above = {other for other in ours_in(imports_of(modules()[name])) if ROW[other] > row}
    assert not above, f"{name} imports from rows above its own: {sorted(above)}"


@pytest.mark.parametrize("name", modules())
def test_other_packages_are_imported_only_where_they_may_be(name: str) -> None:
    packages = {imported.split(".")[0] for imported in imports_of(modules()[name])}
    foreign = packages - set(sys.stdlib_module_names) - {"pytest_qwen"}
    forbidden = {package for package in foreign if name not in ALLOWED.get(package, ())}
    assert not forbidden


def test_the_page_on_architecture_has_the_same_table() -> None:
    rows = re.findall(r"^\| (\d) (\w+) \| (.+?) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    documented = {label: set(re.findall(r"`(\w+)/?`", text)) for _, label, text in rows}
    assert documented == {label: set(text.split()) for label, text in LAYERS.items()}
    assert [label for _, label, _ in reversed(rows)] == list(LAYERS)


HEAVY = ("torch", "transformers", "httpx", "docker", "numpy", "safetensors")
PRINT_HEAVY = f"print('heavy:', sorted(set({HEAVY!r} + ('pynvml',)) & set(sys.modules)))"


def python(code: str, cwd: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{PRINT_HEAVY}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_importing_the_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    assert "heavy: []" in python("import pytest_qwen.plugin", tmp_path)


def test_a_plain_session_imports_nothing_heavy_and_nothing_that_measures(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text("def test_it(): pass")
    code = "import pytest\nassert pytest.main(['-q', '-p', 'no:cacheprovider']) == 0"
    output = python(code + "\nassert 'pytest_qwen.bench' not in sys.modules", tmp_path)
    assert "1 passed" in output
    assert "heavy: []" in output


def test_a_session_on_the_fake_engine_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_fake.py").write_text(
        "from pytest_qwen import max_ttft, model\n"
        "@model('m', engine='fake')\n@max_ttft(500)\ndef test_it(llm): llm.measure()\n"
    )
    output = python(
        "import pytest\nassert pytest.main(['-q', '--gpu=cpu', '-p', 'no:cacheprovider']) == 0", tmp_path
    )
    assert "1 passed" in output
    assert "heavy: []" in output
