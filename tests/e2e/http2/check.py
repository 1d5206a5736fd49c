"""What a check is, how it fails, and how all of them are found."""

import time
from dataclasses import dataclass
from typing import Callable

CHECKS = []
# "inexact": the connection ended with an error, as it must, but the code was PROTOCOL_ERROR where the RFC names a more
# specific one. Who is told so ends the connection either way (RFC 9113 §5.4.1 asks for no GOAWAY at all), so it is
# counted and is no failure. Of dynomesh it says where the h2 crate chose the code: for what HPACK cannot decode
# (COMPRESSION_ERROR), for frames behind the end of a stream (STREAM_CLOSED), for a window beyond the maximum
# in SETTINGS (FLOW_CONTROL_ERROR).
VERDICTS = ["ok", "inexact", "skipped", "FAILED"]


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


def run(it, target):
    """Runs one check against a target."""
    start = time.monotonic()
    target.inexact.clear()
    try:
        it.run(target)
        verdict, reason = ("inexact", "; ".join(target.inexact)) if target.inexact else ("ok", "")
    except Skipped as why:
        verdict, reason = "skipped", str(why)
    except (Failed, OSError) as why:
        verdict, reason = "FAILED", f"{why or type(why).__name__} (expected: {it.says})"
    return Outcome(verdict, reason, time.monotonic() - start)
