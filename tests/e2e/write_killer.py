#!/usr/bin/env python3
"""Kills a process right before its Nth write below a directory, whichever of its threads makes it: ptrace(2).

`write_killer.py PID DIRECTORY N` says `ready` when it watches, and at SIGTERM how many writes it has seen; with 0 it
kills nobody. A write is any system call that changes a file or a directory, or has the disk keep it. Children are not
watched. For x86-64.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

SEIZE, INTERRUPT, SYSCALL, GET_SYSCALL_INFO = 0x4206, 0x4207, 24, 0x420E
TRACE_SYSCALLS, TRACE_CLONE = 0x01, 0x08
SYSCALL_STOP = signal.SIGTRAP | 0x80
EVENT_STOP = 128
AT_ENTRY = 1
# Waits for threads, too (waitpid(2), __WALL).
WALL = 0x40000000
CREATE_OR_TRUNCATE = 0o100 | 0o1000

# By number: what changes the file behind a descriptor, with the place of that among the arguments.
OF_DESCRIPTOR = {
    1: 0, 18: 0, 20: 0, 296: 0, 328: 0,  # write, pwrite64, writev, pwritev, pwritev2
    74: 0, 75: 0, 306: 0,  # fsync, fdatasync, syncfs
    77: 0, 285: 0, 91: 0, 93: 0,  # ftruncate, fallocate, fchmod, fchown
    40: 0, 326: 2,  # sendfile, copy_file_range
}
# What changes a directory: with the place of the path, and of the descriptor that it may be relative to.
OF_PATH = {
    82: (1, None), 264: (3, 2), 316: (3, 2),  # rename, renameat, renameat2
    83: (0, None), 258: (1, 0), 84: (0, None),  # mkdir, mkdirat, rmdir
    87: (0, None), 263: (1, 0),  # unlink, unlinkat
    86: (1, None), 265: (3, 2), 88: (1, None), 266: (2, 1),  # link, linkat, symlink, symlinkat
    90: (0, None), 268: (1, 0), 76: (0, None),  # chmod, fchmodat, truncate
}
OPEN, OPENAT = 2, 257

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


class SyscallInfo(ctypes.Structure):
    """struct ptrace_syscall_info, as far as an entry has it."""

    _fields_ = [
        ("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64), ("stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64), ("arguments", ctypes.c_uint64 * 6), ("more", ctypes.c_uint64),
    ]


def ptrace(request, thread, place=None, data=None):
    """Whether it was done: a thread may have ended."""
    return libc.ptrace(request, thread, place, data) >= 0


class Killer:
    def __init__(self, pid, directory, kill_at):
        self.pid, self.directory, self.kill_at = pid, directory, kill_at
        self.writes = 0

    def seize(self):
        """Watches all threads, also those that begin meanwhile."""
        seized = set()
        while new := {int(task.name) for task in Path(f"/proc/{self.pid}/task").iterdir()} - seized:
            for thread in new:
                if ptrace(SEIZE, thread, None, TRACE_SYSCALLS | TRACE_CLONE):
                    ptrace(INTERRUPT, thread)
            seized |= new

    def watch(self):
        """Returns when the process has ended."""
        while True:
            try:
                thread, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                continue
            stopped_by, event = os.WSTOPSIG(status), status >> 16
            if stopped_by == SYSCALL_STOP:
                self.look(thread)
            is_own = stopped_by == SYSCALL_STOP or event != 0
            ptrace(SYSCALL, thread, None, None if is_own else stopped_by)

    def look(self, thread):
        info = SyscallInfo()
        size = ctypes.sizeof(info)
        got = ptrace(GET_SYSCALL_INFO, thread, size, ctypes.addressof(info))
        if got and info.op == AT_ENTRY and self.is_write(info.number, info.arguments):
            self.writes += 1
            if self.writes == self.kill_at:
                # It is stopped where the call begins, and does not come to it any more.
                os.kill(self.pid, signal.SIGKILL)

    def is_write(self, number, arguments):
        if number in OF_DESCRIPTOR:
            return self.is_below(self.behind(arguments[OF_DESCRIPTOR[number]]))
        if number == OPEN:
            return arguments[1] & CREATE_OR_TRUNCATE and self.is_below(self.path(arguments[0]))
        if number == OPENAT:
            return arguments[2] & CREATE_OR_TRUNCATE and self.is_below(self.path(arguments[1], arguments[0]))
        if number in OF_PATH:
            path, relative_to = OF_PATH[number]
            descriptor = None if relative_to is None else arguments[relative_to]
            return self.is_below(self.path(arguments[path], descriptor))
        return False

    def is_below(self, path):
        return path.is_relative_to(self.directory)

    def behind(self, descriptor):
        return Path(os.readlink(f"/proc/{self.pid}/fd/{ctypes.c_int(descriptor).value}"))

    def path(self, address, descriptor=None):
        """As the process means it. Of AT_FDCWD no descriptor is there, and the working directory is meant."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            path = os.fsdecode(memory.read(4096).split(b"\0")[0])
        if os.path.isabs(path):
            return Path(path)
        relative = descriptor is not None and ctypes.c_int(descriptor).value >= 0
        return (self.behind(descriptor) if relative else Path(os.readlink(f"/proc/{self.pid}/cwd"))) / path


class Told(Exception):
    """To end."""


def be_told(*_):
    raise Told


def main():
    pid, directory, kill_at = sys.argv[1:]
    killer = Killer(int(pid), Path(directory), int(kill_at))
    signal.signal(signal.SIGTERM, be_told)
    try:
        killer.seize()
        print("ready", flush=True)
        killer.watch()
        # It has ended by itself, and nobody needs to say so any more.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except Told:
        pass
    print(killer.writes, flush=True)


if __name__ == "__main__":
    main()
