"""The contestants: how each is found, started on a site, and asked to reload.

All do the same work (bench/README.md says what each cannot); the files are in contestants/.
"""

import shutil
import signal
import subprocess

from . import machine
from .processes import Process
from .site import TOOLS, free_ports, wait_for_answer, wait_for_port


class Contestant:
    """One proxy, or one way to run it."""

    name = ""
    # How to get it, said where it is missing.
    install = ""
    can_reload = False
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
        wait_for_answer(site.port, process)
        return process

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

    def program(self):
        return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

    def version(self):
        return machine.first_version(machine.output(self.program(), "-v"))

    def command(self, site):
        servers = "\n        ".join(f"server {address};" for address in site.dynos.addresses)
        config = site.write("nginx.conf", servers=servers)
        return [self.program(), "-p", site.folder, "-e", site.folder / "error.log", "-c", config]


class Haproxy(Contestant):
    name = "haproxy"
    install = "apt-get install haproxy"
    can_reload = True
    idle_close = ""

    def program(self):
        return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")

    def version(self):
        return machine.first_version(machine.output(self.program(), "-v"))

    def command(self, site):
        addresses = enumerate(site.dynos.addresses, start=1)
        servers = "\n    ".join(f"server web.{number} {address}" for number, address in addresses)
        site.access_log = site.folder / "stdout"
        config = site.write(
            "haproxy.cfg", servers=servers, idle_close=self.idle_close, maxconn=machine.many_connections() + 200
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


class Dynomesh(Contestant):
    name = "dynomesh"
    install = "bench/compare/run builds it"
    can_reload = True

    def program(self):
        program = machine.REPOSITORY / "target" / "release" / "dynomesh"
        return program if program.exists() else None

    def version(self):
        return f"{machine.first_version(machine.output(self.program(), '--version'))} at {machine.commit()}"

    def command(self, site):
        dynos = ", ".join(f'"{address}"' for address in site.dynos.addresses)
        return self._serve(site, f"dynos = [{dynos}]")

    def _serve(self, site, app):
        config = site.write("dynomesh.toml", app=app, admin_port=free_ports(1)[0])
        return [self.program(), "serve", "--config", config]


class DynomeshManaged(Dynomesh):
    """dynomesh running the dynos itself, which is what it is for."""

    name = "dynomesh+managed"

    def command(self, site):
        app = site.folder / "app"
        app.mkdir(exist_ok=True)
        command = f"exec {TOOLS / 'upstream'} --journal {site.dynos.journal} $PORT"
        (app / "Procfile").write_text(f"web: {command}\n")
        return self._serve(site, f'dir = "{app}"\nformation = {{ web = {len(site.dynos.ports)} }}')


ALL = [Direct(), Relay(), Nginx(), Haproxy(), Sozu(), Pingora(), Dynomesh()]
VARIANTS = {"reload": [HaproxyIdleClose()], "kill": [DynomeshManaged()]}
