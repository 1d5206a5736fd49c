"""Where and with what a run is made: cores, descriptors, versions."""

import os
import platform
import re
import resource
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
COMPARE = REPOSITORY / "bench" / "compare"

_cores = sorted(os.sched_getaffinity(0))
# One core for the proxy, the others for what asks and what answers.
PROXY_CORES = {_cores[-1]}
LOAD_CORES = set(_cores[:-1])


def check():
    """Says what makes a comparison impossible here, or None."""
    if not LOAD_CORES:
        return "a comparison needs two cores: one for the proxy, one for the load"
    if not shutil.which("wrk"):
        return "wrk is missing (apt-get install wrk)"
    return None


def raise_descriptor_limit():
    """Raises the limit for this process and all that it starts; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connections_max():
    """As many thousands, up to 13,000, as leave two descriptors per client and some hundred others."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(13_000, (hard - 1_000) // 2 // 1_000 * 1_000)


def many_connections():
    """10,000, or those for which there is room."""
    return min(10_000, connections_max())


def many_hellos(slow):
    """10,000 connections that never finish their handshake, or as many thousands as leave room for three times `slow`
    that do. Those have two descriptors each. Of the others, dynomesh keeps a second one for a sixteenth of all."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, min(10_000, (hard * 15 // 16 - 500 - 2 * 3 * slow) // 1_000 * 1_000))


def output(*command):
    """What a command prints on either stream; empty where it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=REPOSITORY)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).strip()


def first_version(text):
    """The first thing in a text that looks like a version."""
    found = re.search(r"\d+\.\d+(\.\d+)*", text)
    return found.group() if found else "unknown"


def commit():
    """The commit that is measured; `+` where the work tree differs from it (results aside)."""
    changed = output("git", "status", "--porcelain", "--", ".", ":!bench/results")
    return output("git", "rev-parse", "--short", "HEAD") + ("+" if changed else "")


def describe():
    """The machine in one line."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return (
        f"{len(_cores)} cores of {cpu.group(1) if cpu else platform.machine()}, "
        f"{int(memory.group(1)) // 1024 // 1024 + 1} GiB, Linux {platform.release()}"
    )


def tool_versions():
    """Versions of what measures."""
    versions = {
        "wrk": output("wrk", "-v").split(" [")[0].removeprefix("wrk ").strip(),
        "rustc": first_version(output("rustc", "--version")),
        "python": platform.python_version(),
    }
    if shutil.which("h2load"):
        versions["h2load"] = first_version(output("h2load", "--version"))
    if shutil.which("oha"):
        versions["oha"] = first_version(output("oha", "--version"))
    return versions
