"""What asks: wrk, oha and the clients of tools/, each run on the load's cores and read into a dict."""

import json
import shutil
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


def wrk(address, path, connections, seconds, method="GET", body=0):
    """Starts as many requests as the connections carry."""
    script = TEMPLATES / "wrk.lua"
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script]
    return Load(["wrk", *options, f"http://{address}{path}", "--", method, body])


def paced(address, path, connections, seconds, rate):
    """A fixed rate; latencies in microseconds from when each request was due."""
    options = ["--rate", rate, "--connections", connections, "--seconds", seconds]
    return Load([TOOLS / "paced", *options, address, path]).values()


def oha(address, path, connections, seconds, rate):
    """The same by oha: its p50 and p99 in microseconds. Empty where oha is missing."""
    if not shutil.which("oha"):
        return {}
    options = ["--no-tui", "--output-format", "json", "--latency-correction", "--disable-compression"]
    pace = ["-q", rate, "-c", connections, "-z", f"{seconds}s"]
    report = json.loads(Load(["oha", *options, *pace, f"http://{address}{path}"]).output())
    percentiles = report["latencyPercentiles"]
    return {f"oha {name}": percentiles[name] * 1e6 for name in ("p50", "p99") if percentiles[name]}


def losses(address, path, connections, seconds, method="GET", body=0):
    """Starts the client that counts losses."""
    options = ["--connections", connections, "--seconds", seconds, "--method", method, "--body", body]
    return Load([TOOLS / "losses", *options, "--numbered", "yes", address, path])


class Idle:
    """Keep-alive connections that are held."""

    def __init__(self, address, path, connections):
        self._errors = tempfile.NamedTemporaryFile(prefix="compare-load-")
        command = [TOOLS / "idle", "--connections", connections, address, path]
        pipe = subprocess.PIPE
        self._process = Process(command, machine.LOAD_CORES, self._errors.name, stdin=pipe, stdout=pipe)

    def ask(self, phase):
        """Sends one request on `each` connection in turn, or a `burst` of all; returns how many failed."""
        child = self._process.child
        child.stdin.write(f"{phase}\n".encode())
        child.stdin.flush()
        done = child.stdout.readline()
        if not done:
            raise LoadFailed(f"idle: {self._process.last_words()}")
        return int(done.split()[1])

    def stop(self):
        self._process.stop()
