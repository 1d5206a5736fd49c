"""When the kernel did something: its own record (tracefs), in the clock of `time.monotonic()`."""

import contextlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

_MOUNTED = [Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")]
_LINE = re.compile(r"^.{16}-(\d+) +\[\d+\] \S+ +(\d+\.\d+): (\w+)(.*)$")


class Record:
    """What a process' main thread started and whom it woke, and which processes of the machine ended."""

    def __init__(self, folder, pid):
        self._folder = folder
        self._pid = pid
        self._own, self._rings = _wakers(pid)
        self._write("trace_clock", "mono")
        self._write("buffer_size_kb", "2048")
        self._event("sched/sched_process_exit")
        self._event("sched/sched_process_fork", f"common_pid == {pid}")
        self._event("sched/sched_process_exec")
        self._event("syscalls/sys_enter_write", f"common_pid == {pid} && count == 8")
        self._write("tracing_on", "1")

    def exit(self, pid):
        """When this process began to end, in seconds."""
        return next(time for time, _, name, rest in self._lines() if name == "sched_process_exit" and f"pid={pid} " in rest)

    def first_spawn(self, after):
        """When the process started another one first after this moment: no thread, but what has become a program."""
        programs = {f"child_pid={pid} " for _, pid, name, _ in self._lines() if name == "sched_process_exec"}
        return self._first(after, "sched_process_fork", lambda rest: any(pid in rest for pid in programs))

    def first_ring(self, after):
        """When it first woke another thread of its own by an eventfd, as it does when it has changed the table."""
        is_ring = lambda rest: _descriptor(rest) in self._rings - self._own
        return self._first(after, "sys_write", is_ring)

    def _first(self, after, event, is_meant):
        for time, pid, name, rest in self._lines():
            if time > after and pid == self._pid and name == event and is_meant(rest):
                return time
        return None

    def _lines(self):
        for line in Path(self._folder, "trace").read_text().splitlines():
            if found := _LINE.match(line):
                pid, time, name, rest = found.groups()
                yield float(time), int(pid), name, rest + " "

    def _event(self, event, condition=None):
        if condition:
            self._write(f"events/{event}/filter", condition)
        self._write(f"events/{event}/enable", "1")

    def _write(self, file, text):
        Path(self._folder, file).write_text(text)


@contextlib.contextmanager
def record(pid):
    """The record from here on; None where the kernel has none for us."""
    with contextlib.ExitStack() as ends:
        try:
            root = _tracefs(ends)
            folder = Path(root, "instances", f"compare-{os.getpid()}")
            folder.mkdir()
            ends.callback(folder.rmdir)
            kept = Record(folder, pid)
        except (OSError, subprocess.SubprocessError):
            kept = None
        yield kept


def _tracefs(ends):
    for root in _MOUNTED:
        if Path(root, "instances").exists():
            return root
    folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="compare-trace-"))
    subprocess.run(["mount", "-t", "tracefs", "compare", folder], check=True, capture_output=True)
    ends.callback(subprocess.run, ["umount", folder], check=False)
    return folder


def _wakers(pid):
    """What a process' main thread waits for, and all eventfds of the process: one of each thread wakes it."""
    process = Path(f"/proc/{pid}")
    waits_on = None
    while waits_on is None:
        # Or `running`, which it will not be for long.
        call = Path(process, "syscall").read_text().split()
        waits_on = call[1] if len(call) > 2 else None
    epoll = Path(process, "fdinfo", str(int(waits_on, 16))).read_text()
    own = {int(number) for number in re.findall(r"tfd: +(\d+)", epoll)}
    return own, {int(fd.name) for fd in Path(process, "fd").iterdir() if "eventfd" in _link(fd)}


def _descriptor(rest):
    found = re.search(r"fd: (0x)?([0-9a-f]+)", rest)
    return int(found[2], 16) if found else None


def _link(fd):
    try:
        return os.readlink(fd)
    except OSError:
        return ""
