#!/usr/bin/env python3
"""A worker that stands still, as one would in an endless loop or a system call that does not return: does
/healthz tell?

A signal stops a whole process. What stops one thread of it, and no other, is a debugger: ptrace(2).
"""

import contextlib
import ctypes
import os
import unittest
from pathlib import Path

from mesh import Mesh, home_with, wait_until

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
# Waits for threads, too (waitpid(2), __WALL).
WALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


@contextlib.contextmanager
def standing_still(thread):
    """Has one thread of a child process stand still."""
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH, thread)


def thread_named(pid, name):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return next(int(task.name) for task in tasks if (task / "comm").read_text().strip() == name)


class StalledWorker(unittest.TestCase):
    def test_a_worker_that_stands_still_is_told_and_its_return_too(self):
        with Mesh(home_with({}), "", router="workers = 2\n") as mesh:
            self.assertEqual(mesh.admin("/healthz"), (200, b"ok\n"))
            self.assertEqual(self.stalls(mesh), [0, 0])
            with standing_still(thread_named(mesh.process.pid, "worker-1")):
                wait_until("/healthz says so", lambda: mesh.admin("/healthz")[0] == 503)
                reason = mesh.admin("/healthz")[1].decode()
                self.assertRegex(reason, r"\Aworker 1 has not answered for \d+\.\d s\n\Z")
                other, stalled = self.stalls(mesh)
                self.assertEqual(other, 0)
                self.assertGreater(stalled, 2)
                wait_until("the log says so", lambda: "worker 1 has not answered for" in mesh.log.read_text())
            wait_until("/healthz is content", lambda: mesh.admin("/healthz")[0] == 200)
            self.assertEqual(self.stalls(mesh), [0, 0])
            wait_until("the log says so", lambda: "worker 1 answers again" in mesh.log.read_text())

    def stalls(self, mesh):
        return [mesh.total("dynomesh_worker_stall_seconds", worker=str(worker)) for worker in (0, 1)]


if __name__ == "__main__":
    unittest.main(verbosity=2)
