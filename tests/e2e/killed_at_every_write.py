#!/usr/bin/env python3
"""A daemon that is killed right before each of its writes, while a command changes something: does the next one find
what was, or what was to be, as a whole?

`WRITES_KILLED=0 tests/e2e/killed_at_every_write.py` kills before every single write; without it before some of each
command's, evenly over all of them, as in CI. `write_killer.py` does the killing.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import unittest
from dataclasses import dataclass
from pathlib import Path

from mesh import BINARY, PATIENCE_S, Mesh, get, home_with, processes_in, wait_until

# Of each command.
KILLS = int(os.environ.get("WRITES_KILLED", "12"))
KILLER = Path(__file__).resolve().parent / "write_killer.py"
WEB = 2

# Says what it is made of: its slug, a config var, its release. It is up in a moment.
APP = """
import os, socket
said = " ".join(os.environ.get(name, "-") for name in ["V", "A", "HEROKU_RELEASE_VERSION"]).encode()
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    client = server.accept()[0]
    if client.recv(65536):
        client.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(said), said))
    client.close()
"""


@dataclass(frozen=True)
class Whole:
    """What the app is: as the daemon says it, and as the app does."""

    # The newest release: other than the current one, it came to nothing.
    newest: str
    config: str
    formation: str
    domains: str
    answer: str


def moments_of(writes):
    """Before which of so many it is killed."""
    return range(1, writes + 1, max(1, writes // KILLS) if KILLS else 1)


def content(whole):
    """Without the numbers of releases: one that failed takes a number, too."""
    return (whole.config, whole.formation, whole.domains, whole.answer.rsplit(" ", 1)[0])


class KilledAtEveryWrite(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if platform.machine() != "x86_64":
            raise unittest.SkipTest("write_killer.py knows the system calls of x86-64")
        home = home_with({})
        # A quick end where nobody waits for one.
        app = '[apps.shop]\ntimeouts = { exit = "2s" }\n'
        cls.mesh = Mesh(home, app)
        cls.state, cls.prepared = home / "state", home / "prepared"
        for version in ["first", "second", "third"]:
            source = home / version
            source.mkdir()
            (source / "app.py").write_text(APP)
            (source / "Procfile").write_text(f"web: V={version} exec {sys.executable} -S app.py\nrelease: exit 0\n")
        for command in [
            ("deploy", home / "first"), ("config:set", "A=old"), ("domains:add", "old.example.test"),
            ("ps:scale", f"web={WEB}"), ("deploy", home / "second"),
        ]:
            cls.run_command(*command)
        cls.end()
        cls.state.rename(cls.prepared)

    @classmethod
    def tearDownClass(cls):
        cls.mesh.stop()

    def test_deploy(self):
        self.check("deploy", self.mesh.dir / "third")

    def test_config_set(self):
        self.check("config:set", "A=new")

    def test_ps_scale(self):
        self.check("ps:scale", f"web={WEB + 1}")

    def test_rollback(self):
        self.check("rollback", "v2")

    def test_domains_add(self):
        self.check("domains:add", "new.example.test")

    def test_start_that_takes_up_a_deploy(self):
        deploy = ("deploy", self.mesh.dir / "third")
        old, new, writes, left = self.undisturbed(deploy)
        interrupted = self.mesh.dir / "interrupted"
        self.begin()
        self.settled()
        # The release is written, and its command has not ended or not been heard of.
        with Watch(self.mesh, self.state, writes // 2):
            self.run_until_killed(deploy)
        self.clear_away()
        self.state.rename(interrupted)

        def start_killed_at(moment):
            self.put_back(interrupted)
            self.mesh.spawn(before=["sh", "-c", 'kill -STOP $$; exec "$0" "$@"'])
            watch = Watch(self.mesh, self.state, moment)
            self.mesh.process.send_signal(signal.SIGCONT)
            return watch

        with start_killed_at(0) as watch:
            wait_until("the daemon is ready", self.mesh.is_ready)
            self.settled()
            time.sleep(0.5)
        moments = moments_of(watch.writes)
        for moment in moments:
            with self.subTest(moment=moment):
                with start_killed_at(moment):
                    self.wait_a_moment_for(lambda: self.mesh.process.poll() is not None)
                self.restart()
                self.assertIn(content(self.settled()), [content(old), content(new)])
                self.run_command(*deploy)
                self.assertEqual(content(self.settled()), content(new))
                self.expect_files(left)
                self.end()
        print(f"  a start: {watch.writes} writes, killed before {len(moments)}")

    # ---- one command, killed over and over ---------------------------------------------------------------

    def check(self, *command):
        old, new, writes, left = self.undisturbed(command)
        self.assertNotEqual(content(old), content(new))
        moments = moments_of(writes)
        ends = {"old": 0, "new": 0}
        for moment in moments:
            with self.subTest(command=command[0], moment=moment):
                ends[self.killed_at(moment, command, old, new, left)] += 1
        print(f"  {command[0]}: {writes} writes, killed before {len(moments)}: {ends['old']} old, {ends['new']} new")

    def undisturbed(self, command):
        """The app before and after, how many writes it took, and the files that are there in the end."""
        self.begin()
        old = self.settled()
        with Watch(self.mesh, self.state, 0) as watch:
            self.run_command(*command)
            new = self.settled()
            # What follows from it without anybody's waiting.
            time.sleep(0.5)
        left = self.files()
        self.end()
        return old, new, watch.writes, left

    def killed_at(self, moment, command, old, new, left):
        """Which of both it came to."""
        self.begin()
        self.settled()
        with Watch(self.mesh, self.state, moment):
            code = self.run_until_killed(command)
        self.restart()
        found = self.settled()
        self.assertIn(content(found), [content(old), content(new)])
        came_to = "new" if content(found) == content(new) else "old"
        if code == 0 and came_to == "old":
            # A deploy waits for its end. All others are done once their release is written, and its release command
            # runs then: a release that this did not survive is one that has failed, and is shown as such.
            self.assertNotEqual(command[0], "deploy", "it was said to be done")
            self.assertEqual(found.newest, "failed")
        if came_to == "old":
            # Nothing of it is in the way of the next one.
            self.run_command(*command)
            self.assertEqual(content(self.settled()), content(new))
        self.expect_files(left)
        self.end()
        return came_to

    def run_until_killed(self, command):
        """The command's exit code, where it ended before the daemon did."""
        process = subprocess.Popen(
            self.line(*command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        ended = lambda: self.mesh.process.poll() is not None
        wait_until("command or daemon has ended", lambda: ended() or process.poll() is not None)
        code = process.poll()
        if code is None:
            # It would wait for the next daemon.
            process.kill()
            process.wait()
        else:
            self.wait_a_moment_for(ended)
        return code

    def wait_a_moment_for(self, ended):
        end = time.monotonic() + 3
        while not ended() and time.monotonic() < end:
            time.sleep(0.02)

    # ---- the daemon --------------------------------------------------------------------------------------

    def begin(self):
        """Starts on the prepared state, whatever became of what was before."""
        self.put_back(self.prepared)
        self.mesh.start()

    def put_back(self, state):
        self.clear_away()
        shutil.rmtree(self.state, ignore_errors=True)
        # With the sockets of those who were killed.
        subprocess.run(["cp", "--archive", state, self.state], check=True)

    def clear_away(self):
        """Kills the daemon, where it still runs, and its dynos."""
        self.mesh.process.kill()
        self.mesh.process.wait()
        for pid in processes_in(self.mesh.dir):
            os.kill(pid, signal.SIGKILL)

    def restart(self):
        """Starts the next daemon, also where nobody has killed this one."""
        self.mesh.process.kill()
        self.mesh.process.wait()
        self.mesh.start()

    @classmethod
    def end(cls):
        """Ends it as systemd would. Nobody and nothing is left."""
        cls.mesh.process.send_signal(signal.SIGTERM)
        cls.mesh.process.wait(PATIENCE_S)
        left = processes_in(cls.mesh.dir)
        assert not left, f"{left} are left:\n{cls.mesh.log.read_text()[-4000:]}"

    @classmethod
    def line(cls, command, *words):
        return [BINARY, command, "--app", "shop", "--config", cls.mesh.config, *words]

    @classmethod
    def run_command(cls, *command):
        done = subprocess.run(cls.line(*command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{cls.mesh.log.read_text()[-4000:]}"
        return done.stdout

    def settled(self):
        """The app, once all of it agrees: its releases are decided, as many dynos are up as there should be, each runs
        the current one."""
        found = []
        wait_until("the app has settled", lambda: found.append(self.look()) or isinstance(found[-1], Whole))
        return found[-1]

    def look(self):
        """The app as a whole, or why it is none yet."""
        releases = json.loads(self.run_command("releases", "--json"))
        current = [release for release in releases if release["current"]]
        self.assertEqual(len(current), 1, releases)
        if any(release["status"] == "pending" for release in releases):
            return "a release is pending"
        self.assertEqual(current[0]["status"], "succeeded", releases)
        formation = self.run_command("ps:scale").strip()
        wanted = int(formation.split("web=")[1].split(":")[0])
        states = [dyno["state"] for dyno in json.loads(self.mesh.admin("/debug/dynos")[1])]
        if states != ["up"] * wanted:
            return f"{states} in place of {wanted}"
        answers = {get(self.mesh.port, "/", "shop.localhost", 10) for _ in range(8)}
        if len(answers) != 1:
            return f"{answers}"
        (status, answer), = answers
        release, answer = f"v{current[0]['version']}", answer.decode()
        if status != 200 or not answer.endswith(f" {release}"):
            return f"{status} {answer} of {release}"
        hosts = [domain["hostname"] for domain in json.loads(self.run_command("domains", "--json"))]
        return Whole(releases[0]["status"], self.run_command("config", "--json"), formation, " ".join(sorted(hosts)), answer)

    def files(self):
        """What is in the state directory, but for what lives and what the database keeps beside itself."""
        names = (path.relative_to(self.state) for path in self.state.rglob("*"))
        living = ("dynos", "dead")
        return {str(name) for name in names if name.parts[0] not in living and not name.name.endswith(("-wal", "-shm"))}

    def expect_files(self, expected):
        """What is left over is removed in the background."""
        end = time.monotonic() + PATIENCE_S
        while self.files() != expected and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.files() ^ expected, set(), "what is left over, or missing")


class Watch:
    """`write_killer.py` at work on the daemon."""

    def __init__(self, mesh, directory, kill_at):
        self.process = subprocess.Popen(
            [sys.executable, KILLER, str(mesh.process.pid), directory, str(kill_at)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.writes = int(self.process.communicate()[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
