"""A running dynomesh for the end-to-end checks: its directory, its process, its numbers.

It knows the command line, the configuration file and the admin listener, which are what every user depends on,
and nothing else of the inside.
"""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("DYNOMESH_BIN", ROOT / "target/release/dynomesh")).resolve()
APPS = Path(__file__).resolve().parent / "apps"

# Generous: a CI machine may start four interpreters at once on two cores.
PATIENCE_S = 60


class Mesh:
    """One `dynomesh serve` with a directory, ports and log files of its own."""

    def __init__(self, home, apps, default_app=None, https=False, router="", dynos="", admin=""):
        """`https`: it also listens with TLS, on `https_port`. `router`, `dynos`, `admin`: more keys of these sections."""
        self.dir = home
        self.port, self.https_port, self.admin_port = free_ports(3)
        self.https = https
        self.router = router
        self.dynos = dynos
        self.admin_keys = admin
        self.default_app = default_app
        self.config = self.dir / "dynomesh.toml"
        self.access_log = self.dir / "access.log"
        self.log = self.dir / "dynomesh.log"
        self.write(apps)
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # ---- the file and the process ------------------------------------------------------------------------

    def start(self):
        """Starts the process, again after its death, and waits until it is ready."""
        self.spawn()
        try:
            wait_until("dynomesh is ready", self.is_ready)
        except Exception:
            self.stop()
            raise

    def spawn(self, before=()):
        """Starts the process, as the last words of a command that begins with `before`."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*before, BINARY, "serve", "--config", self.config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )

    def write(self, apps):
        """Writes the configuration. It is in force after the start, or after `reload`."""
        default_app = f'default_app = "{self.default_app}"\n' if self.default_app else ""
        https = f'"127.0.0.1:{self.https_port}"' if self.https else ""
        self.config.write_text(
            f'[router]\nhttp = ["127.0.0.1:{self.port}"]\nhttps = [{https}]\ndomain = "localhost"\n{default_app}'
            f'access_log = "{self.access_log}"\n{self.router}\n'
            f'[admin]\nhttp = "127.0.0.1:{self.admin_port}"\n{self.admin_keys}\n'
            f'[state]\ndir = "{self.dir}/state"\n[dynos]\nexpose = [{exposed()}]\n{self.dynos}\n\n{apps}'
        )

    def reload(self):
        """Sends SIGHUP, and returns once the metrics say that the reload was counted."""
        before = self.total("dynomesh_reloads_total")
        self.process.send_signal(signal.SIGHUP)
        wait_until("the reload is counted", lambda: self.total("dynomesh_reloads_total") > before)

    def ca(self):
        """The file with the local CA's certificate, as `dynomesh ca` prints it."""
        command = [BINARY, "ca", "--config", self.config]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        path = self.dir / "ca.pem"
        path.write_bytes(done.stdout)
        return path

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"dynomesh ended with {self.process.returncode}:\n{self.log.read_text()}")
        try:
            return self.admin("/readyz")[0] == 200
        except OSError:
            return False

    def stop(self):
        """Ends it as systemd would. Returns the exit code and what is still running in its directory."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        left = processes_in(self.dir)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        log = self.log.read_text(errors="replace")
        shutil.rmtree(self.dir, ignore_errors=True)
        return self.process.returncode, left, log

    # ---- its numbers -------------------------------------------------------------------------------------

    def get(self, path, host, timeout=10):
        """One GET on a connection of its own: status and body."""
        return get(self.port, path, host, timeout)

    def admin(self, path):
        return get(self.admin_port, path, "localhost", 5)

    def metrics(self):
        """Every sample of /metrics: (name, labels as written) to number."""
        text = self.admin("/metrics")[1].decode()
        samples = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
        return {(name, labels): float(number) for name, labels, number in samples}

    def total(self, name, **labels):
        """The sum over the samples of this name that carry these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        samples = self.metrics().items()
        return sum(number for (it, has), number in samples if it == name and all(want in has for want in wanted))

    def wait_for_dynos(self, app, count):
        """Waits until exactly `count` web dynos of the app are up."""
        up = lambda: self.total("dynomesh_dynos", app=app, type="web", state="up") == count
        wait_until(f"{app} has {count} dynos up", up)

    def rss_kib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])

    def errors(self):
        """The router's lines that say at=error."""
        if not self.access_log.exists():
            return []
        return [line for line in self.access_log.read_text(errors="replace").splitlines() if " at=error " in line]


class Server:
    """A server that somebody else runs: started here, on a port that dynomesh is only told of."""

    def __init__(self, command, cwd):
        (self.port,) = free_ports(1)
        self.addr = f"127.0.0.1:{self.port}"
        environment = {**os.environ, "PORT": str(self.port)}
        self.process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd=cwd, env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        try:
            wait_until(f"{command} accepts", self.accepts)
        except Exception:
            self.stop()
            raise

    def accepts(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def home_with(apps):
    """A fresh directory that holds a copy of an app of `apps/` under each name: {"shop": "node"}."""
    home = Path(tempfile.mkdtemp(prefix="dynomesh-e2e-"))
    for name, kind in apps.items():
        shutil.copytree(APPS / kind, home / name)
    return home


def get(port, path, host, timeout):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait_until(what, is_so):
    """Looks again every 50 ms: for things outside this process that cannot be awaited."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE_S} s in vain until {what}")
        time.sleep(0.05)


def free_ports(count):
    """Ports that nobody listened on a moment ago, each a different one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return ports


def processes_in(directory):
    """The processes whose working directory or order lies in `directory`: dynos that outlived their manager, and
    inits, whose end is that of isolated dynos."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        for link in ["cwd", "fd/0"]:
            try:
                target = Path(os.readlink(entry / link))
            except OSError:
                continue
            if target.is_relative_to(directory):
                found.append(int(entry.name))
                break
    return found


def exposed():
    """What isolated dynos must see beside the system: the virtual environment, and the Python that it is of."""
    places = [ROOT / "target/e2e/venv", Path(sys.base_prefix)]
    return ", ".join(f'"{place}"' for place in places if place.exists())


# What the checks need of PyPI.
PACKAGES = [
    "gunicorn==23.0.0", "websockets==15.0.1", "hpack==4.2.0", "h2==4.4.1", "httpx==0.28.1", "grpcio==1.85.1",
]


def venv(name="venv", packages=PACKAGES):
    """The directory of programs of a virtual environment with these packages, made once."""
    home = ROOT / "target/e2e" / name
    ready = home / "ready"
    if not ready.exists() or ready.read_text() != "\n".join(packages):
        subprocess.run(["python3", "-m", "venv", "--clear", home], check=True)
        pip = [home / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
        ready.write_text("\n".join(packages))
    return home / "bin"


def program(name):
    """The path of an outside program, or None. Those that CI builds itself lie in target/e2e/bin."""
    path = f"{ROOT}/target/e2e/bin:{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:{Path.home()}/.cargo/bin"
    return shutil.which(name, path=path)
