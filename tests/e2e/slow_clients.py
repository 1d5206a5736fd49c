"""slowhttptest against a mesh, while others ask: shared by the checks of plain HTTP and of the edge."""

import statistics
import subprocess
import time

from mesh import program

# Far more than the kernel takes for a reader that is slow.
DOWNLOAD = 10_000_000


class SlowClients:
    """For a TestCase that has a `mesh` with an app `static`, and a `slow_url` at which the slow ones ask."""

    def test_slow_heads_harm_nobody(self):
        self.slowly("-H", "-i", "1", "-x", "24", "-p", "3", "-u", f"{self.slow_url}/slow")

    def test_slow_bodies_harm_nobody(self):
        self.slowly("-B", "-i", "1", "-s", "8192", "-x", "10", "-p", "3", "-u", f"{self.slow_url}/slow")

    def test_slow_readers_harm_nobody(self):
        window = ["-w", "1", "-y", "16", "-n", "1", "-z", "16", "-k", "1"]
        self.slowly("-X", *window, "-p", "3", "-u", f"{self.slow_url}/download/{DOWNLOAD}")

    def slowly(self, *options):
        """slowhttptest with 200 connections to one app for some seconds, while others ask another app."""
        if not program("slowhttptest"):
            self.skipTest("slowhttptest is not installed")
        before = self.mesh.rss_kib()
        command = [program("slowhttptest"), "-c", "200", "-r", "200", "-l", "8", *options]
        attack = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            waits, peak, connections = [], before, 0
            end = time.monotonic() + 8
            while time.monotonic() < end:
                start = time.monotonic()
                status, _ = self.mesh.get("/", "static.localhost")
                self.assertEqual(status, 200)
                waits.append(time.monotonic() - start)
                peak = max(peak, self.mesh.rss_kib())
                connections = max(connections, self.mesh.total("dynomesh_connections"))
                time.sleep(0.02)
        finally:
            attack.terminate()
            attack.wait(10)
        typical, longest = statistics.median(waits), max(waits)
        said = f"others waited {typical * 1000:.0f} ms, {longest * 1000:.0f} at most"
        print(f"  {said}; memory grew {peak - before} KiB", flush=True)
        self.assertGreater(connections, 150, "the slow clients were not there")
        # Two cores carry attackers, victims and everything else: single waits say more of the machine.
        self.assertLess(typical, 0.25)
        self.assertLess(longest, 10)
        # 200 connections: far more than their state needs, far less than buffering their bodies would take.
        self.assertLess(peak - before, 32 * 1024)
