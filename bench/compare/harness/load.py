"""What asks: wrk, oha and the clients of tools/, each run on the load's cores and read into a dict."""

import json
import re
import shutil
import signal
import subprocess
import tempfile

from . import machine
from .processes import Process
from .site import TEMPLATES, TOOLS


class LoadFailed(Exception):
    """A load generator that did not end well, with what it said."""


class Load:
    """A load generator under way."""

    def __init__(self, command):
        self._output = tempfile.NamedTemporaryFile(prefix="compare-load-")
        self._errors = tempfile.NamedTemporaryFile(prefix="compare-load-")
        self.process = Process(command, machine.LOAD_CORES, self._errors.name, stdout=self._output.file)

    def output(self, seconds=180):
        """Waits for its end; what it printed."""
        try:
            code = self.process.child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.stop()
            raise LoadFailed(f"{self.process.command[0]} did not end") from None
        self._output.seek(0)
        text = self._output.read().decode(errors="replace")
        if code != 0:
            raise LoadFailed(f"{self.process.command[0]}: {text}{self.process.last_words()}")
        return text

    def ended(self):
        """Has it end now; what it counted."""
        self.process.signal(signal.SIGINT)
        return self.values()

    def values(self):
        """Waits for its end; the lines `name number` of what it printed."""
        values = {}
        for line in self.output().splitlines():
            name, _, value = line.partition(" ")
            try:
                values[name] = float(value)
            except ValueError:
                pass  # wrk's own summary
        return values


def failures_by_kind(values):
    """The kinds of failure among a client's values."""
    return {name: int(count) for name, count in values.items() if name.startswith(("lost-", "status-"))}


def wrk(target, path, connections, seconds, method="GET", body=0):
    """Starts as many requests as the connections carry."""
    script = TEMPLATES / "wrk.lua"
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script]
    return Load(["wrk", *options, target.url(path), "--", method, body])


def h2load(target, path, connections, streams, seconds):
    """Starts as many requests as so many streams on each of the connections carry."""
    options = ["-t1", f"-c{connections}", f"-m{streams}", "-D", seconds]
    return Load(["h2load", *options, target.url(path)])


def h2load_failures(report):
    """How many requests of a report of h2load's were not answered with a status of 2xx, over TLS 1.3 and HTTP/2."""
    for expected in ("TLS Protocol: TLSv1.3", "Application protocol: h2"):
        if expected not in report:
            raise LoadFailed(f"h2load did not say {expected}: {report[:500]}")
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (done|2xx|failed|errored|timeout)\b", report)}
    return max(counts["done"] - counts["2xx"], counts["failed"] + counts["errored"] + counts["timeout"])


def handshakes(target, path, connections, seconds, resume):
    """Starts connections that come, ask once and go."""
    options = ["--connections", connections, "--seconds", seconds, "--resume", "yes" if resume else "no"]
    return Load([TOOLS / "handshakes", *options, *target.options, target.address, path])


def paced(target, path, connections, seconds, rate):
    """A fixed rate; latencies in microseconds from when each request was due."""
    options = ["--rate", rate, "--connections", connections, "--seconds", seconds]
    values = Load([TOOLS / "paced", *options, *target.options, target.address, path]).values()
    if not values["answers"]:
        raise LoadFailed(f"paced: no answer, but {failures_by_kind(values)}")
    return values


def oha(target, path, connections, seconds, rate):
    """The same by oha: its p50 and p99 in microseconds. Empty where oha is missing."""
    if not shutil.which("oha"):
        return {}
    options = ["--no-tui", "--output-format", "json", "--latency-correction", "--disable-compression"]
    pace = ["-q", rate, "-c", connections, "-z", f"{seconds}s"]
    report = json.loads(Load(["oha", *options, *pace, target.url(path)]).output())
    percentiles = report["latencyPercentiles"]
    return {f"oha {name}": percentiles[name] * 1e6 for name in ("p50", "p99") if percentiles[name]}


def losses(target, path, connections, seconds, method="GET", body=0):
    """Starts the client that counts losses."""
    options = ["--connections", connections, "--seconds", seconds, "--method", method, "--body", body]
    return Load([TOOLS / "losses", *options, *target.options, "--numbered", "yes", target.address, path])


def restarts(target, path, connections):
    """Starts WebSockets that come back when they are closed for a restart, until it is told to end."""
    return Load([TOOLS / "restarts", "--connections", connections, *target.options, target.address, path])


class Driven:
    """A client of tools/ that is told what to do, line by line, and answers each line with a number."""

    def __init__(self, tool, target, *arguments, **options):
        self._errors = tempfile.NamedTemporaryFile(prefix="compare-load-")
        named = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = [TOOLS / tool, *named, *target.options, target.address, *arguments]
        pipe = subprocess.PIPE
        self._process = Process(command, machine.LOAD_CORES, self._errors.name, stdin=pipe, stdout=pipe)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stop()

    def ask(self, line):
        """Tells it something, and returns its answer."""
        self.tell(line)
        return self.hear()

    def tell(self, line):
        self._process.child.stdin.write(f"{line}\n".encode())
        self._process.child.stdin.flush()

    def hear(self):
        """Waits for the answer to what it was told."""
        done = self._process.child.stdout.readline()
        if not done:
            raise LoadFailed(f"{self._process.command[0]}: {self._process.last_words()}")
        return int(done.split()[1])
