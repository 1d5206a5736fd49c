#!/usr/bin/env python3
"""Real servers behind the router: gunicorn, node and nginx, under wrk and oha, without one failed request.

Each runs twice: as a Procfile app that dynomesh starts, scales and reloads while wrk is at it, and as two
processes that somebody else started (`dynos = [...]`).
"""

import threading
import time
import unittest

from load import oha, wrk
from mesh import Mesh, Server, home_with, program, venv

WRK_SECONDS = 4
OHA_REQUESTS = 2000

KINDS = {"sync": "wsgi", "gthread": "wsgi", "node": "node", "static": "static"}


def command(name):
    """What starts the server `name` on $PORT; its Procfile's line."""
    gunicorn = f"{venv()}/gunicorn app:app --bind 127.0.0.1:$PORT --log-level warning --workers 2"
    commands = {
        "sync": f"{gunicorn} --worker-class sync",
        "gthread": f"{gunicorn} --worker-class gthread --threads 8",
        "node": "node server.js",
        "static": "./start",
    }
    return commands[name]


def configuration(home, servers, web):
    """The file: each server as a Procfile app with `web` dynos, and as `ext-NAME` that runs already."""
    apps = []
    for name in KINDS:
        apps.append(f'[apps.{name}]\ndir = "{home / name}"\nformation = {{ web = {web} }}\n')
        dynos = ", ".join(f'"{server.addr}"' for server in servers[name])
        apps.append(f"[apps.ext-{name}]\ndynos = [{dynos}]\n")
    return "\n".join(apps)


class RealApps(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = home_with({**KINDS, **{f"ext-{name}": kind for name, kind in KINDS.items()}})
        cls.servers = {}
        cls.addClassCleanup(lambda: [server.stop() for pair in cls.servers.values() for server in pair])
        for name in KINDS:
            (cls.home / name / "Procfile").write_text(f"web: {command(name)}\n")
            cls.servers[name] = []
            for _ in range(2):
                cls.servers[name].append(Server(command(name), cls.home / f"ext-{name}"))
        cls.mesh = Mesh(cls.home, configuration(cls.home, cls.servers, web=2))
        cls.addClassCleanup(cls.mesh.stop)
        for name in KINDS:
            cls.mesh.wait_for_dynos(name, 2)

    def drive(self, app, while_under_load=lambda: None):
        """wrk, with something happening meanwhile, then oha: every answer must be 200."""
        host, url = f"{app}.localhost", f"http://127.0.0.1:{self.mesh.port}/"
        errors_before = len(self.mesh.errors())
        meanwhile = Meanwhile(while_under_load)
        outcome = wrk(url, host, WRK_SECONDS)
        meanwhile.join()
        self.assertEqual(outcome.failures, [], outcome.text)
        self.assertGreater(outcome.requests, 100)
        said = [f"wrk {outcome.requests} requests"]
        if program("oha"):
            outcome = oha(url, host, OHA_REQUESTS)
            self.assertEqual((outcome.requests, outcome.failures), (OHA_REQUESTS, []), outcome.text)
            said.append(f"oha {outcome.requests}")
        else:
            said.append("oha is not installed: left out")
        self.assertEqual(self.mesh.errors()[errors_before:], [])
        print(f"  {app}: {', '.join(said)}, 0 failed", flush=True)

    def scale_up_and_down(self, app):
        """What happens under wrk's load: one more dyno each, back to one, and the two of before."""
        for web in [3, 1, 2]:
            time.sleep(WRK_SECONDS / 5)
            self.mesh.write(configuration(self.home, self.servers, web))
            self.mesh.reload()

    def drive_scaled(self, app):
        self.drive(app, lambda: self.scale_up_and_down(app))
        self.mesh.wait_for_dynos(app, 2)

    def test_gunicorn_sync_as_a_procfile_app(self):
        self.drive_scaled("sync")

    def test_gunicorn_gthread_as_a_procfile_app(self):
        self.drive_scaled("gthread")

    def test_node_as_a_procfile_app(self):
        self.drive_scaled("node")

    def test_nginx_as_a_procfile_app(self):
        self.drive_scaled("static")

    def test_gunicorn_sync_that_somebody_else_runs(self):
        self.drive("ext-sync")

    def test_gunicorn_gthread_that_somebody_else_runs(self):
        self.drive("ext-gthread")

    def test_node_that_somebody_else_runs(self):
        self.drive("ext-node", self.mesh.reload)

    def test_nginx_that_somebody_else_runs(self):
        self.drive("ext-static")


class StopsWhole(unittest.TestCase):
    def test_a_stop_leaves_no_dyno_behind(self):
        home = home_with({"node": "node"})
        (home / "node/Procfile").write_text("web: node server.js\nworker: sleep 1000\n")
        formation = "formation = { web = 2, worker = 1 }"
        mesh = Mesh(home, f'[apps.node]\ndir = "{home}/node"\n{formation}\n')
        mesh.wait_for_dynos("node", 2)
        code, left, log = mesh.stop()
        self.assertEqual((code, left), (0, []), log)


class Meanwhile(threading.Thread):
    """Something that happens beside the main thread; what it raises is raised by `join`."""

    def __init__(self, deed):
        super().__init__()
        self.deed, self.raised = deed, None
        self.start()

    def run(self):
        try:
            self.deed()
        except Exception as error:
            self.raised = error

    def join(self):
        super().join()
        if self.raised:
            raise self.raised


if __name__ == "__main__":
    unittest.main(verbosity=2)
