"""Processes: start them on their cores, weigh them with all their children, and leave none behind."""

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans():
    """Makes this process the parent of every descendant whose own parent ends, so that none is lost sight of."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def end_descendants():
    """Kills whatever this process started and did not stop."""
    while pids := _descendants(os.getpid()):
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        for pid in pids:
            _reap(pid)
        time.sleep(0.01)


class Process:
    """A program and its children, on the given cores."""

    def __init__(self, command, cores, log, cwd=None, stdout=None, stdin=subprocess.DEVNULL):
        def before_exec():
            os.sched_setaffinity(0, cores)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

        self.command = [str(word) for word in command]
        self._log = Path(log)
        with open(log, "ab") as errors:
            self.child = subprocess.Popen(
                self.command,
                stdin=stdin,
                stdout=stdout or errors,
                stderr=errors,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=before_exec,
            )

    @property
    def pid(self):
        return self.child.pid

    def pids(self):
        """The process and all below it."""
        return [self.pid, *_descendants(self.pid)]

    def pids_named(self, name):
        """Those of them that run the program `name`."""
        return [pid for pid in self.pids() if _name(pid) == name]

    def is_running(self):
        return self.child.poll() is None

    def last_words(self):
        """The end of what it printed, for an error message."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])

    def cpu_seconds(self):
        """User and system time of all threads of all processes, ended and waited-for children included."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / _TICKS

    def resident_kib(self):
        """Memory now."""
        return sum(_status_kib(pid, "VmRSS") for pid in self.pids())

    def peak_kib(self):
        """The sum of each process's own peak."""
        return sum(_status_kib(pid, "VmHWM") for pid in self.pids())

    def signal(self, number):
        _signal(self.pid, number)

    def stop(self):
        """SIGTERM, then SIGKILL to what is left."""
        pids = self.pids()
        self.signal(signal.SIGTERM)
        try:
            self.child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            pass
        still_ours = set(_descendants(os.getpid()))
        for pid in still_ours.intersection(pids):
            _signal(pid, signal.SIGKILL)
        self.child.wait()
        for pid in pids:
            _reap(pid)


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _reap(pid):
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def _stat(pid):
    """The fields of /proc/PID/stat after the name, or None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def _name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _cpu_ticks(pid):
    fields = _stat(pid)
    # utime, stime, cutime, cstime
    return sum(int(field) for field in fields[11:15]) if fields else 0


def _status_kib(pid, key):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def _descendants(root):
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, at = [root], 0
    while at < len(found):
        found += children.get(found[at], [])
        at += 1
    return found[1:]
