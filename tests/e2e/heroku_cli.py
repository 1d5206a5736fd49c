#!/usr/bin/env python3
"""The unmodified heroku CLI, from npm, against a daemon's Platform API.

Each command is asserted on by what it printed and by what happened. usage: heroku_cli.py [-v]
"""

import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import tempfile
import termios
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from mesh import BINARY, ROOT, free_ports

CLI_VERSION = "11.10.0"
NPM = ROOT / "target/e2e/heroku-cli"
HEROKU = NPM / "node_modules/.bin/heroku"


def install():
    """The CLI's own version check and telemetry are off in all of this."""
    package = NPM / "node_modules/heroku/package.json"
    if package.exists() and json.loads(package.read_text())["version"] == CLI_VERSION:
        return
    NPM.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["npm", "install", "--prefix", NPM, "--no-audit", "--no-fund", "--silent", f"heroku@{CLI_VERSION}"],
        check=True,
    )


class HerokuCli(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        install()
        cls.dir = Path(tempfile.mkdtemp())
        cls.http, cls.api = free_ports(2)
        (cls.dir / "app").mkdir()
        (cls.dir / "app/Procfile").write_text(f"web: {BINARY} hello\nworker: sleep 1000\n")
        cls.config = cls.dir / "dynomesh.toml"
        cls.config.write_text(
            f"""[router]
http = ["127.0.0.1:{cls.http}"]
https = []
[admin]
api = "127.0.0.1:{cls.api}"
[apps.shop]
dir = "app"
[apps.shop.config]
FIXED = "by the file"
"""
        )
        cls.log = open(cls.dir / "log", "w")
        cls.daemon = subprocess.Popen([BINARY, "serve", "--config", cls.config], stdout=cls.log)
        cls.addClassCleanup(cls.stop)
        for _ in range(600):
            if cls.get("shop.localhost") == 200:
                break
            time.sleep(0.1)
        exported = [line for line in cls.dynomesh("env").splitlines() if line.startswith("export ")]
        cls.env = dict(os.environ, HOME=str(cls.dir), NO_COLOR="1", TZ="UTC", TERM="xterm")
        cls.env.update(line.removeprefix("export ").split("=", 1) for line in exported)

    @classmethod
    def stop(cls):
        cls.daemon.terminate()
        cls.daemon.wait(60)
        cls.log.close()
        shutil.rmtree(cls.dir, ignore_errors=True)

    @classmethod
    def dynomesh(cls, *args):
        ran = subprocess.run(
            [BINARY, *args, "--config", cls.config], check=True, capture_output=True, text=True
        )
        return ran.stdout.strip()

    @classmethod
    def get(cls, host):
        """The status of a request for this host; 0 while nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{cls.http}/", headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def heroku(self, *args, status=0):
        """What a command printed on both streams."""
        ran = subprocess.run(
            [HEROKU, *args], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(ran.returncode, status, f"{args}: {ran.stdout}{ran.stderr}")
        return ran.stdout, ran.stderr

    def test_apps(self):
        self.assertIn("shop", self.heroku("apps")[0])
        info = self.heroku("apps:info", "-a", "shop")[0]
        self.assertIn(f"http://shop.localhost:{self.http}/", info)
        out, err = self.heroku("apps:create", "blog")
        self.assertIn("Creating blog... done", err)
        self.assertIn(f"http://blog.localhost:{self.http}/", out)
        self.assertEqual(self.get("blog.localhost"), 502, "it has nothing to run yet")
        taken = self.heroku("apps:create", "blog", status=2)[1]
        self.assertIn("Name blog is already taken", taken)
        self.assertIn("Destroying blog", self.heroku("apps:destroy", "-a", "blog", "--confirm", "blog")[1])
        self.assertEqual(self.get("blog.localhost"), 404)

    def test_config_and_releases(self):
        out, err = self.heroku("config:set", "A=1", "B=two words", "-a", "shop")
        self.assertIn("Setting A, B and restarting shop... done, v", err)
        self.assertIn("B: two words", out)
        self.assertEqual(self.heroku("config:get", "A", "-a", "shop")[0], "1\n")
        self.assertIn("B='two words'", self.heroku("config", "-s", "-a", "shop")[0])
        self.assertIn("Unsetting A", self.heroku("config:unset", "A", "-a", "shop")[1])
        self.assertNotIn("A:", self.heroku("config", "-a", "shop")[0])
        fixed = self.heroku("config:set", "FIXED=other", "-a", "shop", status=2)[1]
        self.assertIn(f"{self.config}:", fixed.replace("\n ›   ", ""))
        releases = self.heroku("releases", "-a", "shop")[0]
        self.assertRegex(releases, r"Remove A config vars")
        self.assertRegex(self.heroku("releases:info", "-a", "shop")[0], r"Change: +Remove A config vars")
        self.assertRegex(self.heroku("rollback", "-a", "shop")[1], r"Rolling back shop to v\d+... done, v\d+")
        self.assertEqual(self.heroku("config:get", "A", "-a", "shop")[0], "1\n")
        self.heroku("ps:wait", "-a", "shop")

    def test_dynos(self):
        self.assertIn("=== web (Basic)", self.heroku("ps", "-a", "shop")[0])
        scaled = self.heroku("ps:scale", "worker=2", "-a", "shop")[1]
        self.assertIn("now running worker at 2:Basic", scaled)
        self.heroku("ps:wait", "-a", "shop")
        self.assertIn("worker.2: up", self.heroku("ps", "-a", "shop")[0])
        self.assertRegex(self.heroku("ps:scale", "-a", "shop")[0], r"web=1:Basic worker=2:Basic")
        self.assertIn("Restarting dyno web.1", self.heroku("ps:restart", "-d", "web.1", "-a", "shop")[1])
        self.assertIn("Restarting all worker dynos", self.heroku("ps:restart", "-p", "worker", "-a", "shop")[1])
        self.assertIn("Stopping dyno worker.2", self.heroku("ps:stop", "-d", "worker.2", "-a", "shop")[1])
        ran = self.heroku("run:detached", "-a", "shop", "--", "echo", "said in a one-off")
        self.assertRegex(ran[1] + ran[0], r"run\.\d+")
        for _ in range(20):
            said = self.heroku("logs", "-n", "200", "-a", "shop")[0]
            if "said in a one-off" in said:
                break
            time.sleep(1)
        self.assertRegex(said, r"app\[run\.\d+\]: said in a one-off")
        self.assertIn("heroku[web.1]: State changed from starting to up", said)

    def test_logs_are_followed(self):
        tail = subprocess.Popen(
            [HEROKU, "logs", "--tail", "-a", "shop"],
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self.addCleanup(tail.wait)
        self.addCleanup(tail.kill)
        self.addCleanup(tail.stdout.close)
        self.assertRegex(tail.stdout.readline(), r"(heroku|app)\[")
        asked = "/followed-" + os.urandom(4).hex()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{asked}", headers={"Host": "shop.localhost"}
        )
        urllib.request.urlopen(request, timeout=10).close()
        self.assertTrue(any(asked in line for line in tail.stdout), "the request's line comes")

    def test_maintenance_and_domains(self):
        self.assertEqual(self.heroku("maintenance", "-a", "shop")[0], "off\n")
        self.heroku("maintenance:on", "-a", "shop")
        self.assertEqual(self.get("shop.localhost"), 503)
        self.heroku("maintenance:off", "-a", "shop")
        self.assertEqual(self.get("shop.localhost"), 200)
        self.assertEqual(self.get("www.example.com"), 404)
        self.heroku("domains:add", "www.example.com", "-a", "shop")
        self.assertEqual(self.get("www.example.com"), 200)
        self.assertIn("www.example.com", self.heroku("domains", "-a", "shop")[0])
        self.heroku("domains:remove", "www.example.com", "-a", "shop")
        self.assertEqual(self.get("www.example.com"), 404)

    # ---- attached runs, and dynomesh heroku ----------------------------------------------------------------

    def run_attached(self, *args, stdin="", status=0):
        """What an attached command printed, by way of `dynomesh heroku`."""
        ran = subprocess.run(
            [BINARY, "heroku", "--config", self.config, "run", "-a", "shop", *args],
            env=self.wrapped(), input=stdin, capture_output=True, text=True, timeout=120,
        )
        self.assertEqual(ran.returncode, status, f"{args}: {ran.stdout}{ran.stderr}")
        return ran.stdout, ran.stderr

    def wrapped(self):
        """An environment that has the CLI on its PATH, and nothing else for it."""
        env = {name: value for name, value in self.env.items() if not name.startswith(("HEROKU_", "NODE_"))}
        return dict(env, PATH=f"{HEROKU.parent}:{os.environ['PATH']}")

    def test_attached_runs(self):
        out, err = self.run_attached("--", "echo out; echo err >&2; test -t 1 || echo no terminal")
        self.assertEqual(out, "out\nerr\nno terminal\n")
        self.assertRegex(err, r"up, run\.\d+")
        self.assertIn("Process exited with code 3", self.run_attached("-x", "--", "exit 3", status=3)[1])
        self.run_attached("-x", "--", "true")
        self.run_attached("-x", "--", "kill -9 $$", status=137)
        self.assertEqual(self.run_attached("--", "cat; echo end", stdin="one\ntwo")[0], "one\ntwoend\n")
        self.assertEqual(self.run_attached("-e", "A=1;B=two", "--", "echo $A $B")[0], "1 two\n")
        # By the variables of `dynomesh env` in place of the wrapper, it is the same.
        self.assertEqual(self.heroku("run", "-a", "shop", "-x", "--", "echo direct; exit 4", status=4)[0], "direct\n")

    def test_bash_at_a_terminal(self):
        """As at a person's, who asks for its size, interrupts a command, and leaves."""
        person, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 97, 0, 0))
        command = [BINARY, "heroku", "--config", self.config, "run", "-a", "shop", "-x", "--", "bash --norc"]
        run = subprocess.Popen(
            command, env=self.wrapped(), stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        self.addCleanup(run.wait)
        self.addCleanup(run.kill)
        os.close(terminal)
        seen = ""

        def until(text):
            nonlocal seen
            begun = time.monotonic()
            while text not in seen:
                self.assertLess(time.monotonic() - begun, 60, f"{text!r} in {seen!r}")
                if select.select([person], [], [], 1)[0]:
                    seen += os.read(person, 4096).decode(errors="replace")

        until("up, run.")
        os.write(person, b"stty size; echo $((40+2))\n")
        until("31 97")
        until("42")
        os.write(person, b"echo sleeping-$((1+1)); sleep 1000\n")
        until("sleeping-2")
        os.write(person, b"\x03")
        os.write(person, b"echo interrupted-$?; exit 5\n")
        until("interrupted-130")
        self.assertEqual(run.wait(60), 5)
        os.close(person)

    def test_nothing_goes_to_heroku(self):
        """What the CLI would ask of a host of Heroku's, token and all, ends at the API."""
        ran = subprocess.run(
            [BINARY, "heroku", "--config", self.config, "apps:favorites"],
            env=self.wrapped(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )
        self.assertEqual(ran.returncode, 1, ran.stdout)
        self.assertIn("statusCode=403", ran.stderr)

    def test_a_token_that_is_none(self):
        env = dict(self.env, HEROKU_API_KEY="dynomesh-0000")
        ran = subprocess.run(
            [HEROKU, "apps"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(ran.returncode, 1, ran.stderr)
        self.assertIn("token", ran.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
