"""What an engine's exception means."""

from __future__ import annotations

import pytest

from pytest_qwen.engines.faults import again, exit_in_words, translate
from pytest_qwen.errors import DoesNotFit, EngineFault, ModelUnusable


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class AcceleratorError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("any text"),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_lack_of_memory_does_not_fit(error: Exception) -> None:
    assert isinstance(translate(error), DoesNotFit)


@pytest.mark.parametrize(
    "error",
    [
        AcceleratorError("unspecified launch failure"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("an illegal memory access was encountered"),
        RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    ],
)
def test_device_faults(error: Exception) -> None:
    found = translate(error)
    assert isinstance(found, EngineFault)
    assert found.kind == "device"


def test_the_rest_is_an_error_with_its_place() -> None:
    try:
        {}["head"]
    except KeyError as error:
        found = translate(error)
    assert isinstance(found, EngineFault)
    assert found.kind == "error"
    assert "KeyError: 'head'" in str(found)
    assert "test_faults.py:" in str(found)


def test_our_own_errors_stay() -> None:
    error = ModelUnusable("no such model")
    assert translate(error) is error


def test_again_is_equal_and_without_a_traceback() -> None:
    try:
        raise EngineFault("it hung", "hang")
    except EngineFault as error:
        fault = error
    copy = again(fault)
    assert (type(copy), str(copy), copy.kind) == (EngineFault, "it hung", "hang")
    assert copy is not fault
    assert copy.__traceback__ is None


@pytest.mark.parametrize(
    ("status", "words"), [(3, "exit code 3"), (-11, "SIGSEGV"), (-9, "memory"), (-200, "signal 200")]
)
def test_exit_in_words(status: int, words: str) -> None:
    assert words in exit_in_words(status)
