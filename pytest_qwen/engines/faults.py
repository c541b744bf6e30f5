"""What an engine's exception means: out of memory, a device fault, or an error of its own. Pure."""

from __future__ import annotations

import copy
import signal
import traceback

from pytest_qwen.errors import DoesNotFit, EngineFault, QwenError

# Found in the texts of torch's own exceptions; matched in lower case.
_MEMORY_MARKS = (
    "cuda out of memory",
    "cuda error: out of memory",
    "hip out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
_DEVICE_MARKS = (
    "cuda error",
    "cuda driver error",
    "hip error",
    "device-side assert",
    "illegal memory access",
    "misaligned address",
    "cublas_status_",
    "cudnn_status_",
    "cusolver_status_",
    "cudnn error",
    "cuda kernel errors might be asynchronously reported",
)
_SIGNAL_HINTS = {
    signal.SIGKILL: "killed; often by the kernel because the host ran out of memory",
    signal.SIGSEGV: "segmentation fault in native code",
    signal.SIGABRT: "aborted by native code",
    signal.SIGBUS: "bus error; often a full /dev/shm or a truncated file that is mapped",
    signal.SIGILL: "a CPU instruction that this machine lacks",
}


def translate(error: BaseException) -> QwenError:
    """The error of ours that `error` stands for; ours come back as they are.

    Told apart by class name and text, so that torch need not be imported: `OutOfMemoryError` and allocation
    failures of the libraries become DoesNotFit, CUDA faults EngineFault("device"), the rest
    EngineFault("error").
    """
    if isinstance(error, QwenError):
        return error
    text = str(error).lower()
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"} or any(mark in text for mark in _MEMORY_MARKS):
        return DoesNotFit(f"out of memory: {_last_line(error)}")
    if "AcceleratorError" in names or any(mark in text for mark in _DEVICE_MARKS):
        return EngineFault(f"the device failed under the engine: {_last_line(error)}", "device")
    return EngineFault(f"the engine failed: {_last_line(error)}", "error")


def exit_in_words(status: int) -> str:
    """How a process ended: `status` is its exit code, negative for the signal that killed it."""
    if status >= 0:
        return f"exit code {status}"
    try:
        known = signal.Signals(-status)
    except ValueError:
        return f"signal {-status}"
    hint = _SIGNAL_HINTS.get(known)
    return f"{known.name} ({hint})" if hint else known.name


def _last_line(error: BaseException) -> str:
    """The last line of the traceback with the place that raised: "ValueError: no such head (model.py:12)"."""
    said = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    return f"{said} ({frames[-1].filename}:{frames[-1].lineno})" if frames else said


def again(error: QwenError) -> QwenError:
    """An equal error without the old traceback, to be raised another time."""
    return copy.copy(error)
