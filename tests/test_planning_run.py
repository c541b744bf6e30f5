"""--qwen-plan's text: every test has its line, what can never pass is counted."""

from types import SimpleNamespace

from pytest_qwen.bounds import BOUND_KINDS, Bound
from pytest_qwen.data import find_shape
from pytest_qwen.errors import Misuse
from pytest_qwen.gpus import lookup
from pytest_qwen.markers import Gpu
from pytest_qwen.physics import Setup
from pytest_qwen.planning_run import print_plan
from pytest_qwen.target import Target


class FakeBench:
    target = Target(asked="l4", spec=lookup("l4"))

    def setup_for(self, request):
        shape = find_shape(request.model_id) if request.model_id else None
        return Setup(shape=shape, gpu=lookup("l4"), dtype="float16") if shape else None


class FakeTerminal:
    def __init__(self):
        self.text = ""

    def section(self, title):
        self.text += f"== {title}\n"

    def write_line(self, line):
        self.text += line + "\n"


def request(model_id="Qwen/Qwen2.5-Coder-7B-Instruct", *, rate=None, gpu=None, asked=True):
    kind = BOUND_KINDS["min_tokens_per_sec"]
    bound = Bound(
        marker=kind.marker, metric=kind.metric, direction=kind.direction, limit=rate or 1, unit=kind.unit
    )
    return SimpleNamespace(
        model_id=model_id, gpu=gpu, bounds=(bound,) if rate else (), price_per_hour_usd=None, asked=asked
    )


def test_each_test_has_a_line_and_the_hopeless_ones_are_counted():
    terminal = FakeTerminal()
    failed = print_plan(
        {
            "t.py::fine": request(rate=10),
            "t.py::forbidden": request(rate=30),
            "t.py::wrong": Misuse("marker 'gpu': no such card"),
            "t.py::elsewhere": request(gpu=Gpu(names=("h100",))),
            "t.py::strange": request("nobody/nothing"),
            "t.py::plain": request(None, asked=False),
        },
        FakeBench(),
        terminal,
    )
    assert failed == 2
    assert "== plan for NVIDIA L4" in terminal.text
    assert "feasible    t.py::fine" in terminal.text
    assert "impossible  t.py::forbidden" in terminal.text
    assert "misuse      t.py::wrong: marker 'gpu': no such card" in terminal.text
    assert "unknown     t.py::strange" in terminal.text
    assert "t.py::plain" not in terminal.text
    assert "3 planned: 1 feasible, 1 impossible, 1 unknown" in terminal.text
    assert "1 for other GPUs" in terminal.text
