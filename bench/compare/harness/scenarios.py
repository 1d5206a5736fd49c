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

from . import contestants, kernel, load, machine
from .processes import Process
from .site import Dynos, Site, Target, ask_once, free_ports, wait_for_port


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


# What is looked at of a crash: by the kernel's record where it can be had, and as the daemon itself counts it.
_CRASH_TIMES = [
    ("out", "out"),
    ("heard_out", "out by its own count"),
    ("spawned", "successor started"),
    ("heard_spawned", "started by its own count"),
]


class Crash(Scenario):
    """How long a dead dyno is believed to live, and how long until there is another."""

    name = "crash"
    question = (
        "kill -9 of each of 20 dynos in turn: how long from its exit until it is out of the table, until its "
        "successor is started, and from the kill until that is up?"
    )
    columns = [
        *(Column(f"{key}_p50", f"{title}, median µs") for key, title in _CRASH_TIMES),
        *(Column(f"{key}_max", f"{title}, worst µs") for key, title in _CRASH_TIMES),
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
        times = collections.defaultdict(list)
        with kernel.record(running.process.pid) as record:
            victims = running.process.pids_named("upstream")
            asking = load.losses(running.target, "/slow/10", clients, seconds) if clients else None
            for pid in victims:
                time.sleep(seconds / 2 / self.dynos)
                log.skip()
                counted = _counted(running)
                killed = time.time()
                os.kill(pid, signal.SIGKILL)
                times["up"].append(log.wait_for("State changed from starting to up") - killed)
                for key, seconds_passed in _passed(counted, _counted(running)).items():
                    times[key].append(seconds_passed)
            values = asking.values() if asking else {"failures": 0}
            for pid in victims if record else []:
                exit = record.exit(pid)
                times["out"].append(record.first_ring(exit) - exit)
                times["spawned"].append(record.first_spawn(exit) - exit)
        told = {"failures": values["failures"], "kinds": load.failures_by_kind(values)}
        for key, all_seconds in times.items():
            unit = 1e3 if key == "up" else 1e6
            told |= {f"{key}_p50": statistics.median(all_seconds) * unit, f"{key}_max": max(all_seconds) * unit}
        return told


def _counted(running):
    """Seconds and number of what the daemon counts of crashes."""
    metrics = running.contestant.metrics(running.site)
    names = {"heard_out": "dynomesh_dyno_out_seconds", "heard_spawned": "dynomesh_dyno_respawn_seconds"}
    return {key: (metrics.get(f"{name}_sum", 0), metrics.get(f"{name}_count", 0)) for key, name in names.items()}


def _passed(before, after):
    """What one crash added."""
    for key in before:
        if after[key][1] != before[key][1] + 1:
            raise load.LoadFailed(f"{key}: one crash counted as {after[key][1] - before[key][1]}")
    return {key: after[key][0] - before[key][0] for key in before}


class Wake(Scenario):
    """What sleep costs whoever comes first."""

    name = "wake"
    question = (
        "One request to an app that sleeps, 10 times: how long until its answer, and how much of that is the app's "
        "own boot, measured as from the start of its shell to its first answer where nobody else is involved?"
    )
    columns = [
        Column("boot_p50", "own boot, median ms", 1),
        Column("boot_max", "own boot, worst ms", 1),
        Column("answer_p50", "woken, median ms", 1),
        Column("answer_max", "woken, worst ms", 1),
        Column("more_p50", "more than the boot, median ms", 1),
        Column("more_max", "more than the median boot, worst ms", 1),
    ]
    dynos = 1
    times = 10
    rest = "State changed from up to down"

    def contestants(self):
        # Nobody else has dynos that sleep.
        return contestants.VARIANTS[self.name]

    def measure(self, running, _case, _seconds):
        log = DaemonLog(running.site.folder / "stdout")
        boots, answers = [], []
        for _ in range(self.times):
            log.wait_for(self.rest)
            # The process that went is gone, and its place is cleared.
            time.sleep(0.3)
            log.skip()
            answers.append(ask_once(running.site.port) * 1e3)
            boots.append(self.alone(running) * 1e3)
        boot = statistics.median(boots)
        more = [answer - boot for answer in answers]
        return {
            **{"boot_p50": boot, "boot_max": max(boots)},
            **{"answer_p50": statistics.median(answers), "answer_max": max(answers)},
            **{"more_p50": statistics.median(more), "more_max": max(more)},
        }

    def alone(self, running):
        """Seconds from the start of the app's shell to its first answer, on the proxy's core."""
        port = free_ports(1)[0]
        command = ["bash", "-c", f"exec ./upstream {port}"]
        began = time.monotonic()
        process = Process(command, machine.PROXY_CORES, running.site.folder / "alone", cwd=running.site.folder / "app")
        try:
            wait_for_port(port, process, pause=0.0005)
            ask_once(port)
            return time.monotonic() - began
        finally:
            process.stop()


class Thaw(Wake):
    """What frost costs whoever comes first."""

    name = "thaw"
    question = (
        "One request to a dyno that is frozen, 10 times: how long until its answer, and how much more is that than "
        "one right after it takes?"
    )
    columns = [
        Column("boot_p50", "warm, median ms", 2),
        Column("boot_max", "warm, worst ms", 2),
        Column("answer_p50", "thawed, median ms", 2),
        Column("answer_max", "thawed, worst ms", 2),
        Column("more_p50", "more than warm, median ms", 2),
        Column("more_max", "more than the median warm, worst ms", 2),
    ]
    rest = "Freezing"

    def alone(self, running):
        return ask_once(running.site.port)


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
        Wake(),
        Thaw(),
    ]
