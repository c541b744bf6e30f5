"""The stand-in is the same for a seed, answers as the pipeline does, and nonsense in its place is noticed."""

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pytest_qwen.sandbox.base import SandboxFault
from pytest_qwen.sandbox.tools import script
from pytest_qwen.standin import ALIASES, make_standin, packed_standin, unpacked_standin

ASKED = "Falconsai/nsfw_image_detection"
REPOS = (ASKED, ALIASES[0])


def ran(folder: Path, argv: list[str], line: bytes = b"", **env: str) -> bytes:
    """What a program prints, run as the guest would be: offline, one thread."""
    fixed = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=folder,
        input=line,
        env={**os.environ, **fixed, **env},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Conversation:
    """Runs the job here, or gives what it was told to give."""

    def __init__(self, folder, job, reply):
        self.folder, self.job, self.reply = folder, job, reply

    def send(self, line):
        if self.reply is None:
            for name, content in self.job.files.items():
                (self.folder / name).write_bytes(content)
            self.reply = ran(self.folder, list(self.job.argv[1:]), line + b"\n")

    def receive(self, timeout_s, *, most_bytes=0):
        return self.reply

    def close(self):
        pass


class Here:
    """A sandbox that is none: for our own script alone."""

    def __init__(self, folder, reply=None):
        self.folder, self.reply = folder, reply

    def talk(self, job, *, beside=None):
        return Conversation(self.folder, job, self.reply)


# ---- the script, run with the packages at hand


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    for package in ("torch", "transformers", "PIL", "numpy", "safetensors"):
        pytest.importorskip(package)
    return packed_standin(Here(tmp_path_factory.mktemp("made")), 7, REPOS)


@pytest.fixture(scope="module")
def made(packed):
    return unpacked_standin(json.loads(json.dumps(packed)))


@pytest.mark.slow
def test_a_seed_gives_the_same_bytes(packed, tmp_path):
    assert packed_standin(Here(tmp_path), 7, REPOS) == packed


@pytest.mark.slow
def test_every_repository_is_in_the_hubs_layout(made):
    for hub in (made.hub, made.slow_hub):
        assert len(hub) == 4 * len(REPOS)
        for repo in REPOS:
            root = f"hub/models--{repo.replace('/', '--')}"
            revision = hub[f"{root}/refs/main"].decode()
            assert len(revision) == 40
            config = json.loads(hub[f"{root}/snapshots/{revision}/config.json"])
            assert config["label2id"] == {"normal": 0, "nsfw": 1}
            assert len(hub[f"{root}/snapshots/{revision}/model.safetensors"]) < 2_000_000


@pytest.mark.slow
def test_files_can_be_read_by_everybody(packed):
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed["hub"]))) as tar:
        assert {member.mode & 0o444 for member in tar} == {0o444}


@pytest.mark.slow
def test_pairs_have_opposite_labels_and_scores_that_tell_them_apart(made):
    scores = [one["score"] for one in made.oracle.values()]
    assert all(0.6 <= score < 0.99 for score in scores)
    assert min(abs(a - b) for i, a in enumerate(scores) for b in scores[:i]) > 0.01
    for oracle, pair in ((made.oracle, "good"), (made.oracle, "hidden"), (made.slow_oracle, "good")):
        assert {oracle[f"{pair}.{i}"]["label"] for i in (0, 1)} == set(made.labels)


PIPELINE = """
import json, sys
from transformers import pipeline
from PIL import Image
asked = json.loads(sys.stdin.readline())
answers = {}
for repo, names in asked.items():
    classify = pipeline("image-classification", model=repo)
    answers[repo] = {name: classify(Image.open(name + ".png"))[0] for name in names}
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_the_oracle_is_what_the_pipeline_answers(made, tmp_path):
    renamed = {
        path.replace("models--Falconsai--", "models--slow--"): data for path, data in made.slow_hub.items()
    }
    pictures = {f"{name}.png": data for name, data in made.images.items()}
    for path, data in {**made.hub, **renamed, **pictures}.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    oracles = {ASKED: made.oracle, ASKED.replace("Falconsai", "slow"): made.slow_oracle}
    asked = {repo: list(oracle) for repo, oracle in oracles.items()}
    line = json.dumps(asked).encode() + b"\n"
    answers = json.loads(ran(tmp_path, ["-c", PIPELINE], line, HF_HUB_CACHE=str(tmp_path / "hub")))
    for repo, names in asked.items():
        for name in names:
            assert answers[repo][name]["label"] == oracles[repo][name]["label"]
            assert answers[repo][name]["score"] == pytest.approx(oracles[repo][name]["score"], abs=1e-4)


SEEDS = """
import importlib.util, json, sys
import numpy as np
spec = importlib.util.spec_from_file_location("standin_script", "standin.py")
it = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(it)
found = []
for seed in range(3):
    draw = np.random.default_rng(seed)
    found.append(it.fast_model(seed, [it.picture(draw) for _ in range(it.CANDIDATES)])[0].oracle)
for seed in range(50):  # whatever the log-odds look like
    draw = np.random.default_rng(seed)
    odds = draw.standard_normal(it.CANDIDATES) ** (1, 3)[seed % 2] * 10.0 ** draw.integers(-3, 3)
    low, middle, high = np.quantile(odds, (0.25, 0.5, 0.75))
    centre = it.centre_of(middle, min(middle - low, high - middle), it.QUARTER_LOGIT)
    answers = [centre.answer(one) for one in odds]
    found.append({name: answers[i] for name, i in it.chosen(answers, draw).items()})
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("packed")
def test_there_is_a_choice_for_any_seed(tmp_path):
    (tmp_path / "standin.py").write_bytes(script("standin.py"))
    found = json.loads(ran(tmp_path, ["-c", SEEDS]))
    assert len(found) == 53
    for oracle in found:
        assert set(oracle) == {"good.0", "good.1", "hidden.0", "hidden.1"}
        assert all(one["score"] >= 0.6 for one in oracle.values())
        for pair in ("good", "hidden"):
            assert oracle[f"{pair}.0"]["label"] != oracle[f"{pair}.1"]["label"]
    assert {oracle["good.0"]["label"] for oracle in found} == {"normal", "nsfw"}
    assert len({oracle["good.0"]["score"] for oracle in found[:3]}) == 3


# ---- what comes back is read with care


def tar_of(files):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return base64.b64encode(written.getvalue()).decode()


def hub_of(repo=ASKED):
    root = f"hub/models--{repo.replace('/', '--')}"
    names = ("config.json", "preprocessor_config.json", "model.safetensors")
    return {f"{root}/refs/main": b"abc", **{f"{root}/snapshots/abc/{name}": b"x" for name in names}}


def reply(**changes):
    answers = {
        f"{pair}.{i}": {"label": "no" if i else "yes", "score": 0.8}
        for pair in ("good", "hidden")
        for i in (0, 1)
    }
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    whole = {
        "hub": tar_of(hub_of()),
        "slow_hub": tar_of(hub_of()),
        "oracle": answers,
        "slow_oracle": {name: answers[name] for name in ("good.0", "good.1")},
        "labels": ["yes", "no"],
        "images": dict.fromkeys(answers, png),
        "versions": {"torch": "2"},
    }
    return {**whole, **changes}


def made_from(answer, tmp_path):
    return make_standin(Here(tmp_path, json.dumps(answer).encode()), 3, (ASKED,))


def test_a_whole_reply_is_a_standin(tmp_path):
    made = made_from(reply(), tmp_path)
    assert made.seed == 3
    assert made.hub == hub_of()
    assert made.labels == ("yes", "no")
    assert made.oracle["good.1"] == {"label": "no", "score": 0.8}


DOUBT = {name: {"label": one["label"], "score": 0.55} for name, one in reply()["oracle"].items()}
ALIKE = {name: {"label": "yes", "score": 0.9} for name in reply()["oracle"]}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        reply(hub="%%%"),
        reply(hub=base64.b64encode(b"no tar" * 200).decode()),
        reply(hub=tar_of(hub_of("another/model"))),
        reply(slow_hub=tar_of({**hub_of(), "hub/models--x/../../etc/passwd": b""})),
        reply(slow_hub=tar_of({**hub_of(), "main.py": b""})),
        reply(oracle=DOUBT),
        reply(oracle=ALIKE),
        reply(oracle={}),
        reply(labels=["other", "labels"]),
        reply(images=dict.fromkeys(reply()["images"], base64.b64encode(b"GIF89a").decode())),
        reply(versions=["2"]),
    ],
)
def test_nonsense_is_a_fault_of_the_sandbox(answer, tmp_path):
    with pytest.raises(SandboxFault, match=r"standin\.py"):
        made_from(answer, tmp_path)
