"""Engines that misbehave in ways that the fake engine cannot be programmed to; for child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from pytest_qwen.engines.base import Loaded
from pytest_qwen.engines.fake import FakeEngine
from pytest_qwen.errors import Unavailable

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


class NoisyEngine(FakeEngine):
    """Prints on both streams, from Python and from below it, and fails at the second run."""

    def run(self, request, on_token=None):
        print("python says", self._runs, flush=True)
        os.write(2, b"native code says \xff\n")
        if self._runs == 1:
            raise KeyError("no such head")
        return super().run(request, on_token)


class GrandchildEngine(FakeEngine):
    """Starts helpers, one of them in a session of its own; its device name tells their process ids."""

    def load(self, spec):
        super().load(spec)
        helpers = [subprocess.Popen(SLEEPER), subprocess.Popen(SLEEPER, start_new_session=True)]
        return Loaded(load_s=0.0, device_name=" ".join(str(helper.pid) for helper in helpers))


class StubbornEngine(FakeEngine):
    """Does not close."""

    def close(self):
        while True:
            time.sleep(600)


class ExitingEngine(FakeEngine):
    """Calls sys.exit, as a library's command line would."""

    def run(self, request, on_token=None):
        sys.exit(3)


class UnspeakableEngine(FakeEngine):
    """Answers with what cannot cross a process."""

    def run(self, request, on_token=None):
        return lambda: None


class PickyError(Unavailable):
    """Cannot be made again from its arguments."""

    def __init__(self, *, reason):
        super().__init__(reason)


class PickyEngine(FakeEngine):
    """Raises an error that cannot cross a process as itself."""

    def run(self, request, on_token=None):
        raise PickyError(reason="picky")


class EnvironmentEngine(FakeEngine):
    """Its tokenizer's name is what it sees of the environment."""

    def load(self, spec):
        names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_CUDA_ALLOC_CONF")
        heavy = sorted({"torch", "pytest", "transformers"} & set(sys.modules))
        return Loaded(
            load_s=0.0, tokenizer="|".join(os.environ.get(name, "") for name in names), applied=tuple(heavy)
        )
