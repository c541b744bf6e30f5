"""A laptop that takes itself for the runner: `pytest --qwen-engine=fake --gpu=l4` finds a card to run on."""

from pytest_qwen.testing import pretend_gpus

pretend_gpus("l4")
