#!/usr/bin/env python3
"""Many dynos and a daemon that dies: does everything come back, and is nothing left over?

`DYNOS_MINUTES=5 tests/e2e/dynos.py` crashes dynos for that long; without it for a short while, as in CI.
"""

import contextlib
import ctypes
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
import unittest
from collections import Counter
from pathlib import Path

from load import wrk
from mesh import Mesh, get, home_with, processes_in, venv, wait_until

MINUTES = float(os.environ.get("DYNOS_MINUTES", "0.5"))
DYNOS = 200
CRASH_EVERY_S = 0.05
KILLS = 20


@contextlib.contextmanager
def whole(mesh):
    """Ends a daemon that did well: as it should, and with nobody left."""
    try:
        yield mesh
    except BaseException:
        mesh.stop()
        raise
    code, left, log = mesh.stop()
    assert (code, left) == (0, []), f"ended with {code}, leaving {left}:\n{log[-4000:]}"


class Leftovers:
    """What dynos may leave behind on the machine, counted."""

    def __init__(self, mesh):
        self.mesh = mesh
        # Other daemons may have groups, too: ours are beside those of a dyno that we have.
        one = next((mesh.dir / "state/dynos").iterdir()).name
        self.parents = {group.parent for group in Path("/sys/fs/cgroup").rglob(one)}

    def count(self):
        return {
            "zombies": len(zombies()),
            "control groups": sum(len(list(parent.glob("*/cgroup.procs"))) for parent in self.parents),
            "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
            "directories": len(list((self.mesh.dir / "state/dynos").glob("*"))),
            "descriptors": len(os.listdir(f"/proc/{self.mesh.process.pid}/fd")),
        }


def zombies():
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            if entry.read_text().rsplit(") ", 1)[1].startswith("Z"):
                found.append(entry.parent.name)
        except OSError:
            pass
    return found


def dynos(mesh, app=None):
    """What /debug/dynos says: a list with app, dyno, state, pid, addr."""
    status, body = mesh.admin("/debug/dynos")
    assert status == 200, body
    return [dyno for dyno in json.loads(body) if app in (None, dyno["app"])]


def states(mesh):
    return Counter(dyno["state"] for dyno in dynos(mesh))


class ManyDynos(unittest.TestCase):
    def test_all_of_many_come_back_from_their_crashes_and_leave_nothing(self):
        home = home_with({"web": "node", "worker": "node"})
        (home / "web/Procfile").write_text('web: "$DYNOMESH" hello\n')
        (home / "worker/Procfile").write_text("worker: exec sleep 100000\n")
        quick = "timeouts = { cool_off = \"100ms\", cool_off_max = \"1s\" }"
        app = lambda name, kind: f'[apps.{name}]\ndir = "{home}/{name}"\nformation = {{ {kind} = {DYNOS // 2} }}\n{quick}\n'
        began = time.monotonic()
        with whole(Mesh(home, app("web", "web") + app("worker", "worker"))) as mesh:
            all_up = lambda: states(mesh) == {"up": DYNOS}
            wait_until(f"{DYNOS} dynos are up", all_up)
            booted_s = time.monotonic() - began
            leftovers = Leftovers(mesh)
            settle(leftovers)
            before, rss_before = leftovers.count(), mesh.rss_kib()
            crashes = self.crash_for(mesh, 60 * MINUTES)
            wait_until("all are up again", all_up)
            settle(leftovers)
            after, rss_after = leftovers.count(), mesh.rss_kib()
            print(f"  {DYNOS} up in {booted_s:.1f} s; {crashes} crashes; daemon {rss_before} → {rss_after} KiB; {after}")
            self.assertEqual({**after, "descriptors": 0}, {**before, "descriptors": 0})
            self.assertLess(after["descriptors"], before["descriptors"] + 20)
            self.assertLess(rss_after, rss_before + 16 * 1024)
            ports = [dyno["addr"] for dyno in dynos(mesh, "web")]
            self.assertEqual(len(set(ports)), DYNOS // 2)

    def crash_for(self, mesh, seconds):
        """Kills one dyno's process each 50 ms. Returns how many."""
        crashes, end, listed = 0, time.monotonic() + seconds, []
        while time.monotonic() < end:
            if crashes % 20 == 0:
                listed = [dyno["pid"] for dyno in dynos(mesh) if dyno["state"] == "up" and dyno["pid"]]
            if listed:
                pid = listed.pop(random.randrange(len(listed)))
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                crashes += 1
            time.sleep(CRASH_EVERY_S)
        return crashes


def settle(leftovers):
    """Until two looks in a row agree: ends take their moment."""
    last = None

    def is_still():
        nonlocal last
        before, last = last, leftovers.count()
        time.sleep(0.3)
        return before == last and last["zombies"] == 0

    wait_until("everything has settled", is_still)


class KilledDaemon(unittest.TestCase):
    def test_dynos_outlive_their_daemon(self):
        home = home_with({"shop": "node"})
        (home / "shop/Procfile").write_text("web: node server.js\nworker: exec sleep 100000\n")
        app = f'[apps.shop]\ndir = "{home}/shop"\nformation = {{ web = 3, worker = 1 }}\n'
        with whole(Mesh(home, app)) as mesh:
            mesh.wait_for_dynos("shop", 3)
            pids = self.pids(mesh)
            client = Client(mesh)
            downs = []
            for _ in range(KILLS):
                time.sleep(0.2)
                client.expect_loss()
                killed = time.monotonic()
                mesh.process.kill()
                mesh.process.wait()
                mesh.start()
                mesh.wait_for_dynos("shop", 3)
                downs.append(time.monotonic() - killed)
                self.assertEqual(self.pids(mesh), pids, "a dyno is another process now")
                client.expect_none()
            failures = client.stop()
            print(f"  {KILLS} kills; {client.answers} answers; back within {max(downs):.2f} s")
            self.assertEqual(failures, [])
            self.assertGreater(client.answers, KILLS * 10)

    def pids(self, mesh):
        return {dyno["dyno"]: dyno["pid"] for dyno in dynos(mesh, "shop")}


class Client(threading.Thread):
    """Asks all the time, each time on a new connection, and notes what fails while a daemon runs."""

    def __init__(self, mesh):
        super().__init__()
        self.mesh, self.answers, self.failures = mesh, 0, []
        self.running, self.strict = True, True
        self.start()

    def run(self):
        while self.running:
            strict_before = self.strict
            try:
                status, _ = get(self.mesh.port, "/", "shop.localhost", 10)
                outcome = None if status == 200 else status
            except OSError as error:
                outcome = repr(error)
            if outcome is None:
                self.answers += 1
            elif strict_before and self.strict:
                self.failures.append(outcome)

    def expect_loss(self):
        self.strict = False

    def expect_none(self):
        self.strict = True

    def stop(self):
        self.running = False
        self.join()
        return self.failures


class RealAppsIsolated(unittest.TestCase):
    """What people run, each in its sandbox: their servers find their interpreters, their files and each other."""

    def test_gunicorn_node_and_a_shell_worker(self):
        home = home_with({"wsgi": "wsgi", "node": "node"})
        (home / "wsgi/Procfile").write_text(
            f"web: {venv()}/gunicorn app:app --bind 127.0.0.1:$PORT --workers 2\n"
            "worker: while :; do echo \"working as $(id -u) in $PWD\"; date > last; sleep 0.2; done\n"
        )
        (home / "node/Procfile").write_text("web: node server.js\n")
        apps = (
            f'[apps.wsgi]\ndir = "{home}/wsgi"\nformation = {{ web = 1, worker = 1 }}\n'
            f'[apps.node]\ndir = "{home}/node"\n'
        )
        with whole(Mesh(home, apps)) as mesh:
            for app in ["wsgi", "node"]:
                mesh.wait_for_dynos(app, 1)
                outcome = wrk(f"http://127.0.0.1:{mesh.port}/", f"{app}.localhost", 3)
                self.assertEqual(outcome.failures, [], outcome.text)
                print(f"  {app}: {outcome.requests} requests, 0 failed")
            # A user of its own is none of the machine's people.
            said = lambda: re.search(r"app\[worker\.1\]: working as [1-9]\d{4,} in /app$", mesh.log.read_text(), re.M)
            wait_until("the worker works", said)
            self.assertFalse((home / "wsgi/last").exists(), "the worker wrote to the host")
            web = next(dyno for dyno in dynos(mesh, "node"))
            for kind in ["pid", "mnt", "ipc", "uts"]:
                theirs, ours = os.readlink(f"/proc/{web['pid']}/ns/{kind}"), os.readlink(f"/proc/self/ns/{kind}")
                self.assertNotEqual(theirs, ours, kind)


class RealAppsWithNetworks(unittest.TestCase):
    """The same, each in a network of its own; and all of it in one of this process, whose firewall is nobody else's."""

    @classmethod
    def setUpClass(cls):
        venv()  # which may have to be fetched
        new_network = 0x40000000
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(new_network) != 0:
            raise unittest.SkipTest(f"no network of its own: {os.strerror(ctypes.get_errno())}")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def test_gunicorn_and_node_serve_crash_and_leave_nothing(self):
        before = self.on_host()
        home = home_with({"wsgi": "wsgi", "node": "node"})
        (home / "wsgi/Procfile").write_text(f"web: {venv()}/gunicorn app:app --bind 0.0.0.0:$PORT --workers 2\n")
        (home / "node/Procfile").write_text("web: node server.js\n")
        # As on Heroku: on all addresses, which for node is a socket of IPv6.
        server = home / "node/server.js"
        server.write_text(server.read_text().replace(', "127.0.0.1"', ""))
        quick = "timeouts = { cool_off = \"100ms\", cool_off_max = \"1s\" }"
        apps = "".join(
            f'[apps.{app}]\ndir = "{home}/{app}"\nformation = {{ web = 2 }}\n{quick}\n' for app in ["wsgi", "node"]
        )
        with whole(Mesh(home, apps, dynos='network = "private"')) as mesh:
            for app in ["wsgi", "node"]:
                mesh.wait_for_dynos(app, 2)
                outcome = wrk(f"http://127.0.0.1:{mesh.port}/", f"{app}.localhost", 3)
                self.assertEqual(outcome.failures, [], outcome.text)
                print(f"  {app}: {outcome.requests} requests, 0 failed")
            webs = dynos(mesh)
            networks = {os.readlink(f"/proc/{web['pid']}/ns/net") for web in webs}
            self.assertEqual(len(networks - {os.readlink("/proc/self/ns/net")}), 4)
            for web in webs:
                os.kill(web["pid"], signal.SIGKILL)
            new = lambda: {dyno["pid"] for dyno in dynos(mesh)}.isdisjoint({web["pid"] for web in webs})
            wait_until("all are up again", lambda: states(mesh) == {"up": 4} and new())
            for app in ["wsgi", "node"]:
                self.assertEqual(mesh.get("/", f"{app}.localhost")[0], 200)
            wait_until("only those that live have interfaces", lambda: len(re.findall(r"^\d+: dm", self.on_host(), re.M)) == 4)
        wait_until("nothing is left", lambda: self.on_host() == before)

    def on_host(self):
        """Interfaces, routes and firewall, as tools have them."""
        asked = [["ip", "-o", "link"], ["ip", "route", "show", "table", "all"], ["nft", "list", "ruleset"]]
        return "\n".join(subprocess.run(it, capture_output=True, text=True, check=True).stdout for it in asked)


if __name__ == "__main__":
    unittest.main(verbosity=2)
