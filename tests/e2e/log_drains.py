"""Log drains, with a syslog server that others wrote: rsyslog."""

import subprocess

from mesh import PATIENCE_S, free_ports, wait_until

CONFIGURATION = """
module(load="imtcp")
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="parts" type="string" string="%hostname%|%app-name%|%procid%|%syslogfacility-text%.%syslogseverity-text%|%msg%\\n")
action(type="omfile" file="{dir}/drained" template="parts")
"""


class LogDrains:
    """Wants `mesh`, whose app `echo` has `drain(home)` among its lines."""

    @classmethod
    def drain(cls, home):
        """Starts rsyslog; the key by which an app's log goes there."""
        (port,) = free_ports(1)
        configuration = home / "rsyslog.conf"
        configuration.write_text(CONFIGURATION.format(port=port, dir=home))
        command = ["/usr/sbin/rsyslogd", "-n", "-f", configuration, "-i", home / "rsyslog.pid"]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        cls.addClassCleanup(server.wait, PATIENCE_S)
        cls.addClassCleanup(server.terminate)
        cls.drained = home / "drained"
        return f'drains = ["syslog://127.0.0.1:{port}"]\n'

    def drained_line(self, text):
        """Waits for a line with this."""
        find = lambda: next((it for it in self.drained.read_text(errors="replace").splitlines() if text in it), None)
        wait_until(f"a drained line with {text}", lambda: self.drained.exists() and find())
        return find()

    def test_rsyslog_takes_apart_what_a_drain_sends(self):
        change = self.drained_line("State changed from starting to up")
        self.assertRegex(change, r"^echo\|heroku\|web\.[12]\|syslog\.notice\|State changed")
        self.assertEqual(self.mesh.get("/for-the-drain", "echo.localhost")[0], 200)
        request = self.drained_line('path="/for-the-drain"')
        self.assertTrue(request.startswith("echo|heroku|router|local3.info|at=info method=GET "), request)
