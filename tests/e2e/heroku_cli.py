#!/usr/bin/env python3
"""The unmodified heroku CLI, from npm, against a daemon's Platform API.

Each command is asserted on by what it printed and by what happened. usage: heroku_cli.py [HerokuCli.TEST...]
"""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from mesh import BINARY, PATIENCE_S, ROOT, free_ports
from pki import Authority

CLI_VERSION = "11.10.0"
# What it depends on is taken as it was then, for it names ranges: their newest print tables differently.
CLI_BEFORE = "2026-10-01"
NPM = ROOT / f"target/e2e/heroku-cli-{CLI_VERSION}-{CLI_BEFORE}"
HEROKU = NPM / "node_modules/.bin/heroku"


def install():
    """The CLI's own version check and telemetry are off in all of this."""
    if HEROKU.exists():
        return
    NPM.mkdir(parents=True, exist_ok=True)
    quietly = ["--no-audit", "--no-fund", "--silent"]
    command = ["npm", "install", "--prefix", NPM, *quietly, f"heroku@{CLI_VERSION}"]
    # A registry of somebody's own may have got it later.
    if subprocess.run([*command, "--before", CLI_BEFORE]).returncode != 0:
        subprocess.run(command, check=True)


class HerokuCli(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        install()
        cls.dir = Path(tempfile.mkdtemp())
        cls.http, cls.https, cls.api = free_ports(3)
        (cls.dir / "app").mkdir()
        (cls.dir / "app/Procfile").write_text(f"web: {BINARY} hello\nworker: sleep 1000\n")
        cls.config = cls.dir / "dynomesh.toml"
        cls.config.write_text(
            f"""[router]
http = ["127.0.0.1:{cls.http}"]
https = ["127.0.0.1:{cls.https}"]
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

    def heroku(self, *args, status=0, typed=""):
        """What a command printed on both streams. `typed`: what it is told."""
        # Many commands take what they could read for an argument.
        given = {"input": typed} if typed else {"stdin": subprocess.DEVNULL}
        ran = subprocess.run(
            [HEROKU, *args], env=self.env, **given, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(ran.returncode, status, f"{args}: {ran.stdout}{ran.stderr}")
        # Whether the lines of a table are filled up with blanks is the business of what draws it.
        return re.sub(r" +$", "", ran.stdout, flags=re.MULTILINE), ran.stderr

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

    def test_sizes(self):
        table = self.heroku("ps:type", "-a", "shop")[0]
        self.assertRegex(table, r"worker +Basic")
        out, err = self.heroku("ps:type", "worker=standard-1x", "-a", "shop")
        self.assertIn("Scaling dynos on shop... done", err)
        self.assertRegex(out, r"worker +Standard-1X")
        self.assertRegex(self.heroku("ps:resize", "worker=basic", "-a", "shop")[0], r"worker +Basic")
        self.assertIn("There is no dyno size huge", self.heroku("ps:type", "web=huge", "-a", "shop", status=2)[1])
        self.assertEqual(self.heroku("stack", "-a", "shop")[0].splitlines()[-1], "* host")
        self.assertIn("there is one here, host", self.heroku("stack:set", "heroku-24", "-a", "shop", status=2)[1])

    def test_features(self):
        self.assertRegex(self.heroku("features", "-a", "shop")[0], r"\[ \] http-session-affinity")
        self.assertIsNone(self.cookie())
        self.assertIn("done", self.heroku("features:enable", "http-session-affinity", "-a", "shop")[1])
        self.assertIn("dynomesh-session-affinity=", self.cookie())
        self.assertRegex(self.heroku("features:info", "http-session-affinity", "-a", "shop")[0], r"Enabled: +true")
        self.heroku("features:enable", "http-session-affinity", "-a", "shop", status=1)
        self.heroku("features:disable", "http-session-affinity", "-a", "shop")
        self.assertIsNone(self.cookie())
        self.heroku("features:enable", "preboot", "-a", "shop")
        self.assertRegex(self.heroku("features", "-a", "shop")[0], r"\[\+\] preboot")
        self.assertRegex(self.dynomesh("check"), r"deploy +preboot")
        self.heroku("features:disable", "preboot", "-a", "shop")
        self.heroku("labs", "-a", "shop")

    def cookie(self):
        """What the app's clients are given to come back with."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/", headers={"Host": "shop.localhost"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["Set-Cookie"]

    def test_drains(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE_S)
            url = f"syslog://127.0.0.1:{server.getsockname()[1]}"
            self.assertIn(f"Successfully added drain {url}", self.heroku("drains:add", url, "-a", "shop")[0])
            shown = self.heroku("drains", "-a", "shop")[0]
            self.assertRegex(shown, re.escape(url) + r" \(d\.[-0-9a-f]{36}\)")
            self.assertEqual(json.loads(self.heroku("drains", "--json", "-a", "shop")[0])[0]["url"], url)
            self.get("shop.localhost")
            drain, _ = server.accept()
            with drain:
                drain.settimeout(PATIENCE_S)
                self.assertRegex(drain.recv(4096).decode(), r"^\d+ <\d+>1 \S+ shop heroku ")
        self.assertIn("already a drain", self.heroku("drains:add", url, "-a", "shop", status=2)[1])
        self.assertIn(f"Successfully removed drain {url}", self.heroku("drains:remove", url, "-a", "shop")[0])
        self.assertNotIn(url, self.heroku("drains", "-a", "shop")[0])
        self.assertIn("Couldn't find that drain", self.heroku("drains:remove", url, "-a", "shop", status=2)[1])

    def shown(self, host):
        """The certificate that clients of this host see, PEM."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.https), PATIENCE_S) as client:
            with context.wrap_socket(client, server_hostname=host) as tls:
                return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True))

    def test_certificates(self):
        authority = Authority(self.dir / "ca")
        paths = {}
        for name in ["secure.example.com", "unknown.example.com"]:
            for number in [1, 2]:
                pair = [self.dir / f"{name}.{number}.{kind}" for kind in ["pem", "key"]]
                authority.sign([name], *pair)
                paths[name, number] = pair
        first, second = paths["secure.example.com", 1], paths["secure.example.com", 2]
        self.assertIn("has no SSL certificates", self.heroku("certs", "-a", "shop")[0])
        self.heroku("domains:add", "secure.example.com", "-a", "shop")
        mismatch = self.heroku("certs:add", first[0], second[1], "-a", "shop", status=2)[1]
        self.assertIn("The private key is not the key of", mismatch.replace("\n ›   ", ""))
        # It asks for which domains, since one of the app's is in the certificate; a blank chooses.
        out, err = self.heroku("certs:add", *first, "-a", "shop", typed=" \n")
        self.assertIn("Adding SSL certificate to shop... done", err)
        self.assertRegex(out, r"Common Name\(s\): +secure.example.com")
        self.assertIn("SSL certificate is not trusted.", out)
        self.assertEqual(self.shown("secure.example.com"), first[0].read_text())
        table = self.heroku("certs", "-a", "shop")[0]
        self.assertRegex(table, r"cert-[0-9a-f]{8} +secure.example.com +\S+ \S+ UTC +False +SNI +1")
        name = re.search(r"cert-[0-9a-f]{8}", table)[0]
        self.assertRegex(self.heroku("domains", "-a", "shop")[0], f"secure.example.com .* {name}")
        info = self.heroku("certs:info", "--show-domains", "-a", "shop")[0]
        self.assertRegex(info, r"Issuer: +/CN=end-to-end checks")
        self.assertIn("secure.example.com", info)
        self.heroku("certs:update", *second, "--confirm", "shop", "-a", "shop")
        self.assertEqual(self.shown("secure.example.com"), second[0].read_text())
        # None of the app's domains is in this one: it does not ask.
        self.heroku("certs:add", *paths["unknown.example.com", 1], "-a", "shop")
        self.assertIn("SNI", self.heroku("certs", "-a", "shop")[0])
        self.heroku("certs:remove", "--name", name, "--confirm", "shop", "-a", "shop")
        self.assertNotEqual(self.shown("secure.example.com"), second[0].read_text())
        self.heroku("certs:remove", "--confirm", "shop", "-a", "shop")
        self.assertIn("has no SSL certificates", self.heroku("certs", "-a", "shop")[0])
        self.heroku("domains:remove", "secure.example.com", "-a", "shop")

    def test_addons(self):
        url = "redis://:secret@127.0.0.1:6379"
        create = ["addons:create", "redis", "--as", "REDIS", "-a", "shop", "--"]
        self.assertIn("say where it is", self.heroku(*create[:-1], status=2)[1].replace("\n ›   ", ""))
        out, err = self.heroku(*create, f"--url={url}")
        self.assertIn("Creating redis on shop... free", err)
        name = re.search(r"Created (redis-[0-9a-f]{8}) as REDIS_URL", out)[1]
        self.assertEqual(self.heroku("config:get", "REDIS_URL", "-a", "shop")[0], url + "\n")
        table = self.heroku("addons", "-a", "shop")[0]
        self.assertRegex(table, rf"redis \({name}\) +outside +free")
        self.assertRegex(table, r"└─ as REDIS")
        self.assertIn(name, self.heroku("addons", "--all")[0])
        self.assertRegex(self.heroku("addons:info", name)[0], r"Attachments: +shop::REDIS")
        out, err = self.heroku("addons:attach", name, "--as", "CACHE", "-a", "shop")
        self.assertIn(f"Attaching {name} as CACHE to shop... done", err)
        self.assertRegex(err, r"Setting CACHE config vars and restarting shop... done, v\d+")
        self.assertEqual(self.heroku("config:get", "CACHE_URL", "-a", "shop")[0], url + "\n")
        self.assertRegex(self.heroku("releases", "-n", "1", "-a", "shop")[0], rf"Attach CACHE \(@ref:{name}\)")
        overwrite = self.heroku("config:set", "CACHE_URL=x", "-a", "shop", status=2)[1]
        self.assertIn("Cannot overwrite attachment values CACHE_URL", overwrite)
        err = self.heroku("addons:detach", "CACHE", "-a", "shop")[1]
        self.assertRegex(err, r"Unsetting CACHE config vars and restarting shop... done, v\d+")
        self.assertIn("Destroying", self.heroku("addons:destroy", name, "--confirm", "shop", "-a", "shop")[1])
        self.assertEqual(self.heroku("config:get", "REDIS_URL", "-a", "shop")[0], "\n")
        self.assertIn("No add-ons", self.heroku("addons", "-a", "shop")[0])

    def test_releases_come_in_parts(self):
        for number in range(3):
            self.heroku("config:set", f"PART={number}", "-a", "shop")
        self.assertEqual(self.heroku("releases", "-n", "2", "-a", "shop")[0].count("Set PART config vars"), 2)
        self.heroku("config:unset", "PART", "-a", "shop")
        url = f"http://127.0.0.1:{self.api}/apps/shop/releases"
        headers = {"Authorization": f"Bearer {self.env['HEROKU_API_KEY']}", "Range": "version ..; max=2, order=asc"}
        versions, part = [], 206
        while part == 206:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
                part = answer.status
                versions += [release["version"] for release in json.load(answer)]
                headers["Range"] = answer.headers["Next-Range"]
        self.assertGreaterEqual(len(versions), 5)
        self.assertEqual(versions, list(range(1, len(versions) + 1)))

    def test_pipelines(self):
        self.heroku("apps:create", "shop-staging")
        err = self.heroku("pipelines:create", "store", "-s", "staging", "-a", "shop-staging")[1]
        self.assertIn("Creating store pipeline... done", err)
        self.assertIn("Adding shop-staging to store pipeline as staging... done", err)
        self.assertIn("store", self.heroku("pipelines")[0])
        self.assertIn("done", self.heroku("pipelines:add", "store", "-s", "development", "-a", "shop")[1])
        self.heroku("pipelines:update", "-s", "production", "-a", "shop")
        table = self.heroku("pipelines:info", "store")[0]
        self.assertRegex(table, r"owner: operator@localhost")
        self.assertRegex(table, r"shop-staging +staging\n +shop +production")
        self.assertRegex(self.heroku("apps:info", "-a", "shop")[0], r"Pipeline: +store")
        again = self.heroku("pipelines:add", "store", "-s", "staging", "-a", "shop", status=2)[1]
        self.assertIn("is in a pipeline already", again)
        self.heroku("pipelines:rename", "store", "front")
        self.heroku("pipelines:remove", "-a", "shop-staging")
        self.assertNotIn("shop-staging", self.heroku("pipelines:info", "front")[0])
        self.heroku("pipelines:destroy", "front")
        self.assertNotIn("front", self.heroku("pipelines")[0])
        self.heroku("apps:destroy", "-a", "shop-staging", "--confirm", "shop-staging")

    def test_a_promotion(self):
        for app, stage in [("tried", "staging"), ("used", "production")]:
            self.heroku("apps:create", app)
            verb = "create" if stage == "staging" else "add"
            self.heroku(f"pipelines:{verb}", "line", "-s", stage, "-a", app)
        source = self.dir / "promoted"
        source.mkdir()
        (source / "Procfile").write_text(f"web: {BINARY} hello\nrelease: echo migrated\n")
        self.dynomesh("deploy", source, "-a", "tried")
        self.assertEqual(self.get("used.localhost"), 502, "it has nothing to run yet")
        out, err = self.heroku("pipelines:promote", "-a", "tried")
        self.assertIn("migrated", out)
        self.assertIn("Promotion successful", out + err)
        self.assertRegex(out + err, r"used: +succeeded")
        self.assertEqual(self.get("used.localhost"), 200)
        self.assertRegex(self.heroku("releases", "-a", "used")[0], r"v2 +Promote tried v2 [0-9a-f]{8} ")
        err = self.heroku("pipelines:promote", "-a", "used", status=1)[1]
        self.assertIn("Cannot promote used from 'production' stage", err)
        self.heroku("pipelines:destroy", "line")
        for app in ["tried", "used"]:
            self.heroku("apps:destroy", "-a", app, "--confirm", app)

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

    def through(self, *args, stdin="", status=0):
        """What a command printed on both streams, by way of `dynomesh heroku`."""
        ran = subprocess.run(
            [BINARY, "heroku", "--config", self.config, *args],
            env=self.wrapped(), input=stdin, capture_output=True, text=True, timeout=120,
        )
        self.assertEqual(ran.returncode, status, f"{args}: {ran.stdout}{ran.stderr}")
        return ran.stdout, ran.stderr

    def run_attached(self, *args, **given):
        """What an attached command printed."""
        return self.through("run", "-a", "shop", *args, **given)

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
        # Its own shell says that it sleeps: what bash forked it for is then over. A Ctrl-C that comes between bash's
        # own `echo` and the exec of the command after it is lost, with any terminal (bash 5.2, one time in four).
        os.write(person, b"sh -c 'echo sleeping-$((1+1)); exec sleep 1000'\n")
        until("sleeping-2")
        os.write(person, b"\x03")
        os.write(person, b"echo interrupted-$?; exit 5\n")
        until("interrupted-130")
        self.assertEqual(run.wait(60), 5)
        os.close(person)

    def test_autoscale(self):
        """What the CLI asks of a host of Heroku's by its name, and gets here: bounds that hold at once."""
        source = self.dir / "crowd"
        source.mkdir()
        (source / "Procfile").write_text(f"web: {BINARY} hello\n")
        self.heroku("apps:create", "crowd")
        self.dynomesh("deploy", source, "-a", "crowd")
        enable = ["ps:autoscale:enable", "-a", "crowd"]
        within_two_and_three = [*enable, "--min", "2", "--max", "3", "--p95", "700"]
        self.assertIn("only available with Performance", self.through(*within_two_and_three, status=1)[1])
        self.heroku("ps:type", "performance-m", "-a", "crowd")
        self.assertIn("Enabling dyno autoscaling... done", self.through(*within_two_and_three)[1])
        self.has_web_dynos("crowd", 2)
        self.assertIn("web 2 to 3 dynos for p95 700ms", self.dynomesh("check"))
        decided = self.heroku("ps:scale", "web=1", "-a", "crowd", status=2)[1].replace("\n ›   ", "")
        self.assertIn("follows its requests, from 2 to 3: ps:autoscale:disable comes first", decided)
        # What is not said again stays as it was.
        self.through(*enable, "--min", "3", "--max", "4")
        self.has_web_dynos("crowd", 3)
        self.assertIn("web 3 to 4 dynos for p95 700ms", self.dynomesh("check"))
        wrong = self.through(*enable, "--min", "5", "--max", "4", status=2)[1].replace("\n ›   ", "")
        self.assertIn("max_quantity: expected 5 (min_quantity) or more dynos, not 4.", wrong)
        disable = ["ps:autoscale:disable", "-a", "crowd"]
        self.assertIn("Disabling dyno autoscaling... done", self.through(*disable)[1])
        self.assertEqual(self.heroku("ps:scale", "-a", "crowd")[0], "web=3:Performance-M\n")
        self.assertIn("crowd does not have autoscale enabled", self.through(*disable, status=1)[1])
        self.heroku("ps:scale", "web=1", "-a", "crowd")
        self.has_web_dynos("crowd", 1)
        self.heroku("apps:destroy", "-a", "crowd", "--confirm", "crowd")

    def has_web_dynos(self, app, count):
        """Awaits that so many are up, and no others there."""
        expected = [f"web.{number}: up" for number in range(1, count + 1)]
        begun = time.monotonic()
        while (there := re.findall(r"^web\.\d+: \w+", self.heroku("ps", "-a", app)[0], re.MULTILINE)) != expected:
            self.assertLess(time.monotonic() - begun, PATIENCE_S, there)

    def test_nothing_goes_to_heroku(self):
        """What the CLI would ask of a host of Heroku's, token and all, ends at the API."""
        self.assertIn("statusCode=403", self.through("apps:favorites", status=1)[1])

    def test_a_token_that_is_none(self):
        env = dict(self.env, HEROKU_API_KEY="dynomesh-0000")
        ran = subprocess.run(
            [HEROKU, "apps"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(ran.returncode, 1, ran.stderr)
        self.assertIn("token", ran.stderr)


def in_parts():
    """Runs all tests in two processes, each with a daemon of its own: most of their time is node's, for each command.
    Returns whether all passed."""
    install()
    names = [f"HerokuCli.{name}" for name in unittest.defaultTestLoader.getTestCaseNames(HerokuCli)]
    parts = [subprocess.Popen([sys.executable, __file__, *names[begin::2]]) for begin in range(2)]
    return all([part.wait() == 0 for part in parts])


if __name__ == "__main__":
    if sys.argv[1:]:
        unittest.main(verbosity=2)
    sys.exit(0 if in_parts() else 1)
