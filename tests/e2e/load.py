"""Load from outside programs: each runs once, bounded, and says what failed."""

import json
import re
import subprocess
from dataclasses import dataclass, field

from mesh import program


@dataclass
class Outcome:
    """What one run of a load generator counted."""

    requests: int
    failures: list = field(default_factory=list)
    text: str = ""


def wrk(url, host, seconds, connections=32):
    """Keep-alive GETs for some seconds. Status 4xx, 5xx and every socket error is a failure."""
    text = run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-H", f"Host: {host}", url])
    failures = re.findall(r"Non-2xx or 3xx responses: .*|Socket errors: .*", text)
    return Outcome(number(r"(\d+) requests in", text), failures, text)


def oha(url, host, requests, connections=32, keep=True):
    """A number of GETs, with keep-alive or each on a connection of its own, whoever signed the certificate.
    Everything but 200 is a failure."""
    options = ["-n", str(requests), "-c", str(connections), "--no-tui", "--output-format", "json", "--host", host]
    options += ["--insecure"] + ([] if keep else ["--disable-keepalive"])
    text = run(["oha", *options, url])
    report = json.loads(text)
    statuses, errors = report["statusCodeDistribution"], report["errorDistribution"]
    failures = [f"{count} × {what}" for what, count in errors.items()]
    failures += [f"{count} × status {status}" for status, count in statuses.items() if status != "200"]
    return Outcome(statuses.get("200", 0), failures, text)


def ab(url, host, requests, connections=32, keep=True):
    """A number of HTTP/1.0 GETs. `keep`: with keep-alive, where one that loses its connection is a failure."""
    options = ["-q", "-n", str(requests), "-c", str(connections), "-H", f"Host: {host}"]
    text = run(["ab", *options, *(["-k"] if keep else []), url])
    failures = re.findall(r"Failed requests:\s+[1-9].*|Non-2xx responses:.*|Write errors:\s+[1-9].*", text)
    kept = number(r"Keep-Alive requests:\s+(\d+)", text) if keep else requests
    if kept != requests:
        failures.append(f"only {kept} of {requests} on a kept connection")
    return Outcome(number(r"Complete requests:\s+(\d+)", text), failures, text)


def h2load(url, requests, connections=32, streams=None, seconds=None):
    """A number of GETs by nghttp2's client, or some seconds of them: over HTTP/1.1, or over HTTP/2 with so many
    `streams` at once on each connection."""
    protocol = ["-m", str(streams)] if streams else ["--h1"]
    amount = ["-D", str(seconds)] if seconds else ["-n", str(requests)]
    text = run(["h2load", *protocol, *amount, "-c", str(connections), url])
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    names = ["failed", "errored", "timeout"]
    failures = [f"{count} {name}" for name, count in zip(names, found.groups()[1:]) if count != "0"]
    failures += re.findall(r"[1-9]\d* [345]xx", text)
    return Outcome(number(r"status codes: (\d+) 2xx", text), failures, text)


def number(pattern, text):
    found = re.search(pattern, text)
    assert found, f"no {pattern} in:\n{text}"
    return int(found[1])


def run(command):
    command = [program(command[0]) or command[0], *command[1:]]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
