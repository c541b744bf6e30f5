"""The pages are true: every marker, option and fixture is there, every example parses, every link leads somewhere."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import pytest_qwen
from pytest_qwen import llm, markers, plugin, settings
from pytest_qwen.ask import RunRequest, read_marks
from pytest_qwen.engines.programme import Programme
from pytest_qwen.outcomes import NoVerdict
from pytest_qwen.presets import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
PAGES += sorted((ROOT / "examples").rglob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARKER_PAGES = sorted((ROOT / "docs").glob("markers-*.md"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks() -> list[tuple[str, str]]:
    return [(page.name, found[1]) for page in PAGES for found in BLOCK.finditer(page.read_text("utf-8"))]


def marks_of(block: str) -> list[list[pytest.Mark]]:
    """The marks of each test of an example, with its class's, module's and parameters' marks."""
    space = {"__name__": "example"}
    code = compile(block, "<example>", "exec")
    if "def test" in block:  # a script is compiled only: it would do something
        exec(code, space)  # noqa: S102 - our own pages
    module = space.get("pytestmark", [])
    outer = [m.mark for m in (module if isinstance(module, list) else [module])]
    found = [outer]
    for made in space.values():
        own = list(getattr(made, "pytestmark", [])) if callable(made) else []
        sets = [p.marks for m in own if m.name == "parametrize" for p in m.args[1] if hasattr(p, "marks")]
        for extra in sets or [()]:
            found.append([*(m.mark for m in extra), *own, *outer])
    return found


@pytest.mark.parametrize(
    ("page", "block"), [pytest.param(*b, id=f"{b[0]}-{i}") for i, b in enumerate(blocks())]
)
def test_every_example_is_python_and_its_marks_are_accepted(page, block):
    for marks in marks_of(block):
        request = read_marks([(object(), mark) for mark in marks], uses_fixtures=True)
        assert isinstance(request, RunRequest)


def test_every_marker_has_its_signature_and_an_example_on_a_page():
    pages = "\n".join(page.read_text("utf-8") for page in MARKER_PAGES)
    used = {mark.name for _, block in blocks() for marks in marks_of(block) for mark in marks}
    for name, kind in markers.MARKERS.items():
        assert f"## `{markers.usage(kind)}`" in pages
        assert name in used, f"no example of {name}"


@pytest.mark.parametrize("kind", [markers.Gpu, markers.Model, markers.Workload], ids=lambda kind: kind.name)
def test_every_argument_of_the_large_markers_is_explained(kind):
    pages = "\n".join(page.read_text("utf-8") for page in MARKER_PAGES)
    for argument in (field.name for field in dataclasses.fields(kind)):
        assert re.search(rf"^\| `\*?{argument}` \|", pages, re.MULTILINE), argument


def test_every_preset_and_profile_is_listed():
    for preset in PRESETS:
        assert f"| `{preset}` |" in text("docs/markers-speed.md")
    for profile in set(markers.OPTIMIZE) - {"auto"}:
        assert f"| `{profile}` |" in text("docs/markers-what-runs.md")


def test_every_option_is_listed_with_its_twin_and_default():
    page = text("docs/options.md")
    rows = {
        row.split("|")[2].strip(" `"): row for row in page.replace("\\|", "/").splitlines() if "`qwen_" in row
    }
    assert rows.keys() == {option.dest for option in settings.OPTIONS}
    for option in settings.OPTIONS:
        row = rows[option.dest]
        assert option.flag in row
        assert f"| `{option.default}` |" in row if option.default else "| none |" in row
    assert "`--gpu=NAME`" in page


def test_options_named_on_any_page_exist():
    known = {option.flag for option in settings.OPTIONS}
    for page in PAGES:
        for flag in re.findall(r"--qwen-[a-z-]+[a-z]", page.read_text("utf-8")):
            assert flag in known, f"{page.name}: {flag}"


def test_every_fixture_and_every_method_of_llm_is_explained():
    page = text("docs/fixtures.md")
    tree = ast.parse(Path(plugin.__file__).read_text("utf-8"))
    fixtures = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("fixture" in ast.dump(d) for d in node.decorator_list)
    ]
    assert sorted(fixtures) == [
        "accuracy",
        "compare",
        "finetune",
        "gpu",
        "law",
        "llm",
        "load",
        "plan",
        "published",
        "rate",
        "sandbox",
    ]
    for name in fixtures:
        assert f"## `{name}`" in page
    for name in vars(llm.Llm):
        if not name.startswith("_"):
            assert f"`llm.{name}" in page, name


def test_every_reason_for_no_verdict_and_every_option_of_the_fake_engine_is_listed():
    for reason in NoVerdict:
        assert f"| {reason.value} |" in text("docs/exit-codes.md")
    for name in (field.name for field in dataclasses.fields(Programme)):
        assert f"`{name}`" in text("docs/writing-an-engine.md"), name


def test_the_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", text("README.md")))
    assert named == {"suites", "test"}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_the_changelog_has_the_present_version():
    assert f"## [{pytest_qwen.__version__}]" in text("CHANGELOG.md")
