"""What a check is, how it fails, and how all of them are found."""

import time
from dataclasses import dataclass
from typing import Callable

CHECKS = []
# "inexact": the error that was due came, but as PROTOCOL_ERROR, which is for use "when a more specific error code is
# not available" (RFC 9113 §7), where one is. Nobody can do anything with that which they ought not, so it is said and
# counted, and is no failure.
VERDICTS = ["ok", "inexact", "skipped", "known", "FAILED"]


class Failed(Exception):
    """The server did something else than the RFC says."""


class Skipped(Exception):
    """This server does not offer what the check is about."""


@dataclass
class Check:
    """One MUST of an RFC, tried against a server."""

    section: str
    name: str
    says: str
    run: Callable

    def __str__(self):
        return f"{self.section} {self.name}"


def check(section):
    """Registers a function of a target as a check. It returns if the server behaves, else raises `Failed`."""

    def register(function):
        says = " ".join(function.__doc__.split())
        CHECKS.append(Check(section, function.__name__, says, function))
        return function

    return register


@dataclass
class Outcome:
    verdict: str  # one of VERDICTS
    reason: str
    seconds: float


def run(it, target, known=None):
    """`known`: why this check is known to fail, if it is."""
    start = time.monotonic()
    target.inexact.clear()
    try:
        it.run(target)
        verdict, reason = ("inexact", "; ".join(target.inexact)) if target.inexact else ("ok", "")
        if known:
            verdict, reason = "FAILED", f"it passes, and is said to fail: {known}"
    except Skipped as why:
        verdict, reason = "skipped", str(why)
    except (Failed, OSError) as why:
        verdict, reason = "FAILED", f"{why or type(why).__name__} (expected: {it.says})"
        if known:
            verdict, reason = "known", known
    return Outcome(verdict, reason, time.monotonic() - start)
