#!/usr/bin/env python3
"""What a newcomer does first: types README's command that serves, then README's curl, then Ctrl-C.

usage: newcomer.py SERVE CURL     the two commands, as README writes them
"""

import os
import signal
import subprocess
import sys
import time

from mesh import ROOT

BUILD_SECONDS = 14 * 60


def main(serve, curl):
    print(f"$ {serve}", flush=True)
    server = subprocess.Popen(serve.split(), cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        answer = first_answer(server, curl)
    finally:
        # As a terminal does it: to every process of the group.
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGINT)
        code = server.wait(60)
    print(f"$ {curl}\n{answer}", end="")
    assert "hello" in answer.lower(), "the answer does not say hello"
    assert "web." in answer, "the answer does not say which dyno it came from"
    assert code == 0, f"after Ctrl-C the exit code was {code}"


def first_answer(server, curl):
    """What curl prints once something answers; until then the build is under way."""
    end = time.monotonic() + BUILD_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit(f"it ended with {server.returncode} before it answered")
        done = subprocess.run(
            [*curl.split(), "--silent", "--fail"], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.5)
    raise SystemExit("no answer")


if __name__ == "__main__":
    main(*sys.argv[1:])
