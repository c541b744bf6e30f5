"""The three outcomes of a bound, why one can be missing, and whose fault a failure is."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What the evidence says of one bound."""

    PASS = "PASS"
    FAIL = "FAIL"
    NO_VERDICT = "NO VERDICT"


class NoVerdict(StrEnum):
    """Why the evidence does not decide."""

    BUDGET = "budget ended before the evidence was sure"
    TOO_FEW = "too few samples for this percentile"
    TOO_FEW_QUESTIONS = "too few questions to be sure"
    THROTTLED = "GPU clocks were throttled"
    CO_TENANT = "another process used the GPU"
    HOST_OVERLOADED = "the host's CPUs were contended"
    UNSTABLE = "the rate drifted during the session"
    CLIENT_LAG = "the client's event loop lagged"
    CLIENT_BEHIND = "the client held less of the load than was asked"
    NO_USAGE = "the server does not say how many tokens it sent"
    CACHE_HITS = "the server answered from its prefix cache"
    NOT_TOKENS = "the server sends several tokens in a chunk"
    SHORT_OUTPUT = "fewer tokens came out than were asked for"
    BEYOND_PHYSICS = "measured beyond what physics allows"
    NOT_MEASURABLE = "this machine cannot measure it"
    UNRATED = "the answer could not be rated"
    ERRORS = "the engine failed before the evidence was sure"


class Fault(StrEnum):
    """Who has to act: decides between error, skip and failed test."""

    USER = "user"
    MACHINE = "machine"
    MODEL = "model"
