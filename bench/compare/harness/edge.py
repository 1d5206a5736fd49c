"""The scenarios of the edge: TLS, HTTP/2, WebSockets, and clients that mean no good."""

import shutil
import time

from . import load, machine
from .scenarios import FAILURES, Column, IdleMemory, Scenario, Throughput


class Handshakes(Scenario):
    """What a client costs that comes, asks once and goes."""

    columns = [
        Column("requests_per_second", "handshakes/s"),
        Column("cpu_us", "CPU µs/handshake and GET", 1),
        Column("per_cpu_second", "handshakes/CPU second", compared=True),
        Column("resumed_percent", "resumed %", 1),
        Column("busy_percent", "core used %"),
        Column("peak_mib", "peak MiB", 1),
        FAILURES,
    ]
    tls = True
    connections = 64

    def __init__(self, name, question, resume):
        self.name = name
        self.question = question
        self.resume = resume

    def measure(self, running, _case, seconds):
        clients = load.handshakes(running.target, "/small", self.connections, seconds + 2, self.resume)
        time.sleep(1)
        running.look()
        time.sleep(seconds)
        values = running.since_look()
        counted = clients.values()
        whole = max(counted["full"] + counted["resumed"], 1)
        return {
            **values,
            "per_cpu_second": 1e6 / values["cpu_us"],
            "resumed_percent": counted["resumed"] / whole * 100,
            "failures": counted["failures"],
            "kinds": load.failures_by_kind(counted),
        }


class Http2(Throughput):
    """Requests as streams of some connections."""

    cases = [
        (f"{connections} × {streams}", (connections, streams))
        for connections, streams in ((10, 10), (64, 1), (1, 1), (1, 100))
    ]

    def __init__(self, name, question):
        super().__init__(name, question, "/small", 64, tls=True)

    def contestants(self):
        # Nobody else's fault.
        return super().contestants() if shutil.which("h2load") else []

    def measure(self, running, case, seconds):
        connections, streams = case
        whole = self.warm_up + seconds + 1
        h2load = load.h2load(running.target, self.path, connections, streams, whole)
        time.sleep(self.warm_up)
        running.look()
        time.sleep(seconds)
        values = running.since_look()
        return {**values, "failures": load.h2load_failures(h2load.output())}


class WebSockets(Scenario):
    """What a message costs that goes to a dyno and comes back, and what a socket that is silent."""

    name = "websocket-echo"
    sockets = 64
    idle = 2_000
    question = (
        f"{sockets} WebSockets with one message of 100 bytes in flight on each: what does a message to a dyno and "
        f"back cost? And {idle} that are silent after one message: how much resident memory for each?"
    )
    columns = [
        Column("requests_per_second", "messages/s"),
        Column("cpu_us", "CPU µs/message and echo", 1, compared=True),
        Column("busy_percent", "core used %"),
        Column("idle_kib", "KiB/idle socket", 2, compared=True),
        FAILURES,
    ]
    cases = [("ws", False), ("wss", True)]

    def is_over_tls(self, case):
        return case

    def measure(self, running, _case, seconds):
        # The memory first: what it leaves behind does not change the time of a message, the other way round it
        # would hide what a socket takes.
        idle_kib, failures = self._weigh(running) if running.process else (None, 0)
        with load.Driven("websockets", running.target, "/echo", connections=self.sockets) as sockets:
            failures += sockets.ask("each")
            sockets.tell(f"echo {seconds + 2}")
            time.sleep(1)
            running.look()
            time.sleep(seconds)
            values = running.since_look()
            failures += sockets.hear()
        weighed = {} if idle_kib is None else {"idle_kib": idle_kib}
        return {**values, **weighed, "failures": failures}

    def _weigh(self, running):
        """KiB per idle socket, and how many did not open."""
        # What every process needs for its first sockets is not the idle ones'.
        with load.Driven("websockets", running.target, "/echo", connections=4) as first:
            failures = first.ask("each")
        base = running.process.resident_kib()
        with load.Driven("websockets", running.target, "/echo", connections=self.idle) as idle:
            failures += idle.ask("each")
            time.sleep(1)
            kib = (running.process.resident_kib() - base) / self.idle
        if failures >= self.idle:
            raise load.LoadFailed(f"{failures} WebSockets did not open that were to be weighed")
        return kib, failures


class HalfOpen(Scenario):
    """Whether clients that never finish take anything from those who do."""

    name = "half-open"
    columns = [
        Column("p50_alone", "p50 µs alone"),
        Column("p50", "p50 µs among them"),
        Column("p99_alone", "p99 µs alone"),
        Column("p99", "p99 µs among them", compared=True),
        Column("slower", "p99 among them / alone", 2),
        Column("base_mib", "MiB alone", 1),
        Column("peak_mib", "peak MiB", 1, compared=True),
        Column("refused", "of them not let in"),
        Column("held", "of them held to the end"),
        FAILURES,
    ]
    tls = True
    connections = 32
    rate = 1_000
    # Of each kind.
    slow = 1_000
    # Below the 10 s that dynomesh gives a handshake, so that the halves of a ClientHello are still there.
    settle = 2

    def __init__(self):
        self.hellos = machine.many_hellos(self.slow)
        self.question = (
            f"{self.hellos} connections that stop half-way through their ClientHello; {self.slow} each that send a "
            f"head, send a body, and take 1 MB, a byte a second. How long do {self.connections} others wait for a "
            f"small GET over HTTPS at {self.rate} requests/s, without them and among them, and what do they weigh?"
        )

    def measure(self, running, _case, seconds):
        load.paced(running.target, "/small", self.connections, 1, self.rate)
        alone = load.paced(running.target, "/small", self.connections, seconds, self.rate)
        base = running.process.resident_kib()
        slow = {"heads": self.slow, "bodies": self.slow, "readers": self.slow}
        with load.Driven("slow", running.target, hellos=self.hellos, **slow) as crowd:
            refused = crowd.ask("begin")
            # What the crowd costs once is over then: its handshakes, and what of the answers fits into buffers.
            time.sleep(self.settle)
            # Their connections are new: they have to get in among them.
            among = load.paced(running.target, "/small", self.connections, seconds, self.rate)
            held = crowd.ask("held")
        return {
            "p50_alone": alone["p50"],
            "p99_alone": alone["p99"],
            "p50": among["p50"],
            "p99": among["p99"],
            "slower": among["p99"] / max(alone["p99"], 1),
            "base_mib": base / 1024,
            "peak_mib": running.process.peak_kib() / 1024,
            "refused": refused,
            "held": held,
            "failures": alone["failures"] + among["failures"],
            "kinds": load.failures_by_kind(among),
        }


def every():
    """All scenarios of the edge, in the order in which they run."""
    https = "64 keep-alive connections over TLS 1.3, a GET of 12 bytes: what does a request cost?"
    full = "64 clients at a time, each with a full TLS 1.3 handshake (P-256), one GET and the end: what does it cost?"
    resumed = "The same where each goes on with the session of the one before, by a ticket."
    http2 = "A GET of 12 bytes in HTTP/2 over TLS 1.3, connections × streams on each: what does a request cost?"
    idle = "5,000 keep-alive connections over TLS 1.3: how much resident memory for each?"
    return [
        Throughput("https-get", https, "/small", 64, tls=True),
        Throughput("https-get-512", "The same with 512 connections.", "/small", 512, tls=True),
        Handshakes("handshake-full", full, resume=False),
        Handshakes("handshake-resumed", resumed, resume=True),
        Http2("h2-get", http2),
        WebSockets(),
        IdleMemory("https-idle-memory", idle, 5_000, tls=True),
        HalfOpen(),
    ]
