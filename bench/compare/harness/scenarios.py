"""The scenarios: each a question, a load, and what is measured while it lasts."""

import collections
import contextlib
import datetime
import os
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import contestants, load, machine
from .site import Dynos, Site, Target


@dataclass(frozen=True)
class Column:
    """One measured value in the report."""

    key: str
    title: str
    digits: int = 0
    # Whether it is set against relay, nginx and HAProxy too.
    compared: bool = False


FAILURES = Column("failures", "failures")


class Scenario:
    """A question that every contestant is asked in turn."""

    name = ""
    question = ""
    columns = []
    dynos = 4
    # One process per dyno, with a journal of the requests it got.
    dynos_apart = False
    # Label and parameter of each table of the report.
    cases = [("", None)]
    seconds = 5
    tls = False

    def contestants(self):
        """Who takes part."""
        return contestants.ALL + contestants.VARIANTS.get(self.name, [])

    def is_over_tls(self, _case):
        """Whether the clients come over TLS."""
        return self.tls

    def takes(self, contestant, case):
        """Whether one of those who take part can do this case."""
        return contestant.speaks_tls or not self.is_over_tls(case)

    def run(self, contestant, case, seconds):
        """Starts dynos and contestant, measures, stops them; returns the values by key."""
        with contextlib.ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
            dynos = Dynos(folder, self.dynos, self.dynos_apart)
            ends.callback(dynos.stop)
            site = Site(folder, dynos, self.is_over_tls(case))
            process = contestant.start(site) if contestant.is_proxy else None
            if process:
                ends.callback(process.stop)
            return self.measure(Running(site, contestant, process), case, seconds)

    def measure(self, running, case, seconds):
        raise NotImplementedError


class Running:
    """A contestant that is up: where it answers, and what went through it since the last look."""

    def __init__(self, site, contestant, process):
        self.site = site
        self.contestant = contestant
        self.process = process
        # The client asks the first dyno itself where there is no contestant.
        self.target = site.target if process else Target(site.dynos.addresses[0])

    def look(self):
        """Begins to measure."""
        self._first = self._state()

    def since_look(self):
        """What happened since, counted by the dynos: the load's own beginning and end are not in it."""
        first, last = self._first, self._state()
        passed = {key: last[key] - first[key] for key in first}
        seconds, requests = passed["time"], passed["requests"]
        # Nothing for much CPU would be told as a price, and nothing for none as a good one.
        if requests == 0:
            raise load.LoadFailed("no request was answered while it was measured")
        values = {
            "requests_per_second": passed["requests"] / seconds,
            "megabytes_per_second": passed["bytes"] / seconds / 1e6,
        }
        if self.process:
            values |= {
                "cpu_us": passed["cpu"] / requests * 1e6,
                "cpu_us_per_megabyte": passed["cpu"] / max(passed["bytes"], 1) * 1e12,
                "busy_percent": passed["cpu"] / seconds * 100,
                "log_bytes": passed["log"] / requests,
                "peak_mib": self.process.peak_kib() / 1024,
            }
        return values

    def _state(self):
        requests, size = self.site.dynos.count()
        return {
            "time": time.monotonic(),
            "cpu": self.process.cpu_seconds() if self.process else 0,
            "requests": requests,
            "bytes": size,
            "log": self.contestant.log_bytes(self.site),
        }


class Throughput(Scenario):
    """As many requests as so many connections carry, one after the other on each."""

    columns = [
        Column("requests_per_second", "requests/s"),
        Column("cpu_us", "CPU µs/request", 1, compared=True),
        Column("busy_percent", "core used %"),
        Column("peak_mib", "peak MiB", 1),
        Column("log_bytes", "log B/request"),
        FAILURES,
    ]

    def __init__(self, name, question, path, connections, method="GET", body=0, tls=False):
        self.name = name
        self.question = question
        self.path = path
        self.connections = connections
        self.method = method
        self.body = body
        self.tls = tls
        # Thousands of connections are not there in a moment.
        self.warm_up = 1 + connections // 3_000

    def measure(self, running, _case, seconds):
        whole = self.warm_up + seconds + 1
        wrk = load.wrk(running.target, self.path, self.connections, whole, self.method, self.body)
        time.sleep(self.warm_up)
        running.look()
        time.sleep(seconds)
        values = running.since_look()
        return {**values, "failures": wrk.values()["failures"]}


class Bulk(Throughput):
    """The same for bodies so large that bytes count, not requests."""

    columns = [
        Column("megabytes_per_second", "MB/s"),
        Column("cpu_us_per_megabyte", "CPU µs/MB", 1, compared=True),
        Column("busy_percent", "core used %"),
        Column("peak_mib", "peak MiB", 1),
        FAILURES,
    ]


class Latency(Scenario):
    """How long an answer takes while requests come at a fixed rate."""

    name = "latency"
    question = "64 connections, a small GET at a fixed rate: how long from when it was due to its answer?"
    columns = [
        Column("rate", "answers/s"),
        Column("p50", "p50 µs"),
        Column("p99", "p99 µs", compared=True),
        Column("p99.9", "p99.9 µs"),
        Column("max", "max µs"),
        Column("cpu_us", "CPU µs/request", 1),
        Column("oha p50", "oha p50 µs"),
        Column("oha p99", "oha p99 µs"),
        FAILURES,
    ]
    cases = [(f"{rate} requests/s", rate) for rate in (1_000, 5_000, 10_000, 20_000)]

    def measure(self, running, rate, seconds):
        load.paced(running.target, "/small", 64, 1, rate)
        running.look()
        values = load.paced(running.target, "/small", 64, seconds, rate)
        used = running.since_look()
        return {**used, **values, **load.oha(running.target, "/small", 64, seconds, rate)}


class IdleMemory(Scenario):
    """What a client costs that is connected and silent."""

    columns = [
        Column("base_mib", "MiB before", 1),
        Column("idle_kib", "KiB/connection after one request each", 2, compared=True),
        Column("burst_kib", "KiB/connection after a burst of all", 2),
        FAILURES,
    ]

    def __init__(self, name, question, connections, tls=False):
        self.name = name
        self.question = question
        self.connections = connections
        self.tls = tls

    def contestants(self):
        return [each for each in super().contestants() if each.is_proxy]

    def measure(self, running, _case, _seconds):
        # What every process needs for its first requests is not the connections'.
        load.losses(running.target, "/small", 4, 0.5).output()
        base = running.process.resident_kib()
        with load.Driven("idle", running.target, "/small", connections=self.connections) as idle:
            failures = idle.ask("each")
            time.sleep(1)
            after_each = running.process.resident_kib()
            failures += idle.ask("burst")
            time.sleep(1)
            after_burst = running.process.resident_kib()
        if failures >= self.connections:
            raise load.LoadFailed(f"{failures} of the requests failed that were to be weighed")
        return {
            "base_mib": base / 1024,
            "idle_kib": (after_each - base) / self.connections,
            "burst_kib": (after_burst - base) / self.connections,
            "failures": failures,
        }


class Reload(Scenario):
    """Whether anybody notices a reload."""

    name = "reload"
    question = "20 reloads in 4 s under 60 keep-alive clients that never retry: how many requests break?"
    columns = [
        Column("answers", "answers"),
        Column("failures", "broken requests"),
        Column("p99", "p99 µs"),
        Column("max", "slowest µs"),
        Column("peak_mib", "peak MiB", 1),
    ]
    seconds = 6

    def contestants(self):
        return [each for each in super().contestants() if each.can_reload]

    def measure(self, running, _case, seconds):
        clients = load.losses(running.target, "/small", 60, seconds)
        time.sleep(max(0, seconds - 4) / 2)
        start = time.monotonic()
        for number in range(20):
            time.sleep(max(0, start + number * 0.2 - time.monotonic()))
            running.contestant.reload(running.site, running.process)
        values = clients.values()
        return {
            **values,
            "kinds": load.failures_by_kind(values),
            "peak_mib": running.process.peak_kib() / 1024,
        }


class Kill(Scenario):
    """Who pays when a dyno dies with requests in flight."""

    name = "kill"
    question = (
        "kill -9 of one of three dynos while 20 requests are in flight, each 100 ms long, by clients that "
        "never retry: how many are lost, how many did a dyno get twice, and who had to wait?"
    )
    columns = [
        Column("answers", "answers"),
        Column("failures", "lost requests"),
        Column("twice", "sent twice"),
        Column("p99", "p99 µs"),
        Column("max", "slowest µs"),
    ]
    dynos = 3
    dynos_apart = True
    cases = [("GET", ("GET", 0)), ("POST of 1 KB", ("POST", 1000))]
    seconds = 4

    def contestants(self):
        # The relay has nothing to choose with.
        return [each for each in super().contestants() if each.is_proxy and each.name != "relay"]

    def measure(self, running, case, seconds):
        method, body = case
        clients = load.losses(running.target, "/slow/100", 20, seconds, method, body)
        time.sleep(seconds / 2)
        os.kill(victim(running), signal.SIGKILL)
        values = clients.values()
        return {**values, "kinds": load.failures_by_kind(values), "twice": requests_seen_twice(running)}


class Crash(Scenario):
    """How long a dead dyno is believed to live, and how long until there is another."""

    name = "crash"
    question = (
        "kill -9 of each of 20 dynos in turn: how long from the kill until it is out of the table, and until its "
        "successor is in it? 'Out' is the line `State changed from up to crashed`, printed once that is done."
    )
    columns = [
        Column("out_p50", "out, median µs"),
        Column("out_max", "out, worst µs"),
        Column("up_p50", "up again, median ms", 1),
        Column("up_max", "up again, worst ms", 1),
        Column("failures", "lost requests"),
    ]
    # One kill each: a second crash within a minute would be waited after.
    dynos = 20
    cases = [("nobody asks", 0), ("20 GETs in flight, each 10 ms long", 20)]
    seconds = 5

    def contestants(self):
        # Nobody else runs dynos.
        return contestants.VARIANTS[self.name]

    def measure(self, running, clients, seconds):
        log = DaemonLog(running.site.folder / "stdout")
        log.wait_for("State changed from starting to up", self.dynos)
        asking = load.losses(running.target, "/slow/10", clients, seconds) if clients else None
        out, up = [], []
        for pid in running.process.pids_named("upstream"):
            time.sleep(seconds / 2 / self.dynos)
            log.skip()
            killed = time.time()
            os.kill(pid, signal.SIGKILL)
            up.append(log.wait_for("State changed from starting to up") - killed)
            out.append(log.wait_for("State changed from up to crashed") - killed)
        values = asking.values() if asking else {"failures": 0}
        return {
            "out_p50": statistics.median(out) * 1e6,
            "out_max": max(out) * 1e6,
            "up_p50": statistics.median(up) * 1e3,
            "up_max": max(up) * 1e3,
            "failures": values["failures"],
            "kinds": load.failures_by_kind(values),
        }


class DaemonLog:
    """What dynomesh prints, each line with its time in the clock of this machine."""

    def __init__(self, path):
        self._path = path
        self._start = 0

    def skip(self):
        """Forgets what is there."""
        self._start = self._path.stat().st_size

    def wait_for(self, text, times=1, seconds=15):
        """Waits for so many lines with this; the time of the last of them, in seconds."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self._path.read_bytes()[self._start :].decode().splitlines(keepends=True)
            found = [line for line in lines if text in line and line.endswith("\n")]
            if len(found) >= times:
                return datetime.datetime.fromisoformat(found[times - 1].split(" ", 1)[0]).timestamp()
            if time.monotonic() > deadline:
                raise LogSilent(f"no line with {text!r} within {seconds} s")
            time.sleep(0.01)


class LogSilent(load.LoadFailed):
    """A line that did not come."""


def victim(running):
    """A dyno of the contestant's own where it runs them, else one of those beside it."""
    own = running.process.pids_named("upstream")
    return own[0] if own else running.site.dynos.processes[0].pid


def requests_seen_twice(running):
    """How many requests more than one dyno got whole."""
    lines = running.site.dynos.journal.read_text().splitlines()
    seen = collections.Counter(line.split(" ", 1)[1] for line in lines if "?n=" in line)
    return sum(times > 1 for times in seen.values())


def every():
    """All scenarios, in the order in which they run."""
    many = machine.many_connections()
    return [
        Throughput("small-get", "64 keep-alive connections, a GET of 12 bytes: what does a request cost?", "/small", 64),
        Throughput("small-get-512", "The same with 512 connections.", "/small", 512),
        Throughput("small-get-10k", f"The same with {many} connections.", "/small", many),
        Throughput("get-10k", "64 connections, a GET of 10 KB.", "/bytes/10000", 64),
        Bulk("get-1m", "16 connections, a GET of 1 MB.", "/bytes/1000000", 16),
        Bulk("get-100m", "4 connections, a GET of 100 MB.", "/bytes/100000000", 4),
        Bulk("post-10m", "8 connections, a POST of 10 MB.", "/small", 8, "POST", 10_000_000),
        Latency(),
        IdleMemory("idle-memory", f"{many} keep-alive connections: how much resident memory for each?", many),
        Reload(),
        Kill(),
        Crash(),
    ]
