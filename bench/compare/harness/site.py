"""Where one contestant runs: its ports, its folder, the dynos behind it."""

import socket
import ssl
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from . import certificate, machine
from .processes import Process

TOOLS = machine.COMPARE / "tools" / "target" / "release"
TEMPLATES = machine.COMPARE / "contestants"


def free_ports(count):
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for_port(port, process, seconds=15, pause=0.02):
    """Returns once something accepts on the port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if not process.is_running() or time.monotonic() > deadline:
                raise Unready(process) from None
            time.sleep(pause)


def wait_for_answer(port, process, tls=False, seconds=15):
    """Returns once the dynos answer through the port."""
    deadline = time.monotonic() + seconds
    while True:
        connection = _connection(port, tls)
        try:
            connection.request("GET", "/small")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        if not process.is_running() or time.monotonic() > deadline:
            raise Unready(process)
        time.sleep(0.05)


def ask_once(port):
    """One small GET on a connection of its own; how many seconds it took."""
    began = time.monotonic()
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/small")
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    took = time.monotonic() - began
    if answer.status != 200:
        raise OSError(f"answered {answer.status}")
    return took


def _connection(port, tls):
    if not tls:
        return HTTPConnection("127.0.0.1", port, timeout=5)
    # The clients of tools/ look at the certificate.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection("127.0.0.1", port, timeout=5, context=context)


@dataclass(frozen=True)
class Target:
    """Where the load goes."""

    address: str
    # What is shown there, where that is TLS.
    certificate: Path | None = None

    def url(self, path):
        return f"{'https' if self.certificate else 'http'}://{self.address}{path}"

    @property
    def options(self):
        """What the clients of tools/ are told of TLS."""
        return ["--certificate", self.certificate] if self.certificate else []


class Unready(Exception):
    """A program that did not come up, with what it said."""

    def __init__(self, process):
        super().__init__(f"{process.command[0]} did not come up: {process.last_words()}")


class Dynos:
    """The upstream: one process with several ports, or one process per port, so that one can be killed."""

    def __init__(self, folder, count, apart=False):
        self.ports = free_ports(count)
        self.processes = []
        # Where each request that came whole is a line. Only for few requests: it costs a write each.
        self.journal = folder / "journal"
        options = ["--journal", self.journal] if apart else []
        for ports in [[port] for port in self.ports] if apart else [self.ports]:
            command = [TOOLS / "upstream", *options, *ports]
            self.processes.append(Process(command, machine.LOAD_CORES, folder / "upstream.log"))
        for port in self.ports:
            wait_for_port(port, self.processes[0])

    @property
    def addresses(self):
        return [f"127.0.0.1:{port}" for port in self.ports]

    def count(self):
        """Requests answered and bytes of bodies carried so far, where one process has all ports."""
        connection = HTTPConnection("127.0.0.1", self.ports[0], timeout=20)
        try:
            connection.request("GET", "/count")
            requests, size = connection.getresponse().read().split()
            return int(requests), int(size)
        finally:
            connection.close()

    def stop(self):
        for process in self.processes:
            process.stop()


class Site:
    """A contestant's folder and port for one run."""

    def __init__(self, folder, dynos, tls=False):
        self.folder = folder
        self.dynos = dynos
        self.port = free_ports(1)[0]
        self.tls = tls
        self.access_log = self.folder / "access.log"

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def target(self):
        return Target(self.address, certificate.chain() if self.tls else None)

    def write(self, template, **values):
        """Fills a template (`@name@`) and returns the file's path."""
        values = {"port": self.port, "folder": self.folder, "access_log": self.access_log, **values}
        text = (TEMPLATES / template).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        path = self.folder / template
        path.write_text(text)
        return path
