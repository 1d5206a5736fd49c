"""Whether anybody notices what is done to an app that is busy: deploys, scalings, restarts, rollbacks."""

import statistics
import time
from http.client import HTTPConnection

from . import contestants, load
from .scenarios import Column, Scenario

TIMES = {"deploy": 100, "scaling": 50, "restart": 20, "rollback": 20}


class Deploys(Scenario):
    """All that an operator does to an app, while it is asked without a pause."""

    name = "deploys"
    dynos = 1
    gets, posts, sockets = 16, 8, 20
    question = (
        f"{TIMES['deploy']} deploys, {TIMES['scaling']} scalings up and down again, {TIMES['restart']} restarts and "
        f"{TIMES['rollback']} rollbacks of an app with {contestants.WEB} web dynos, by the command line, under {gets} connections of "
        f"wrk, {posts} POSTs of 1 KB at a time that are never sent again, and {sockets} WebSockets that come back when "
        "they are closed with 1012: how many requests break, how many WebSockets end otherwise, and does every answer "
        "after a deploy come from what was deployed?"
    )
    columns = [
        *(Column(f"{kind}_count", f"{kind}s") for kind in TIMES),
        Column("seconds", "seconds in all", 1),
        Column("deploy_p50", "deploy, median ms"),
        Column("deploy_max", "deploy, worst ms"),
        Column("gets", "GETs"),
        Column("posts", "POSTs"),
        Column("messages", "messages"),
        Column("restarts", "closed with 1012"),
        Column("failures", "broken requests"),
        Column("lost_sockets", "lost WebSockets"),
        Column("wrong", "wrong release"),
    ]
    # Whatever is not done by then is left out.
    seconds = 900

    def contestants(self):
        # Nobody else has deploys.
        return contestants.VARIANTS[self.name]

    def measure(self, running, _case, seconds):
        operator = Operator(running)
        whole = 2 * seconds
        wrk = load.wrk(running.target, "/small", self.gets, whole)
        posts = load.losses(running.target, "/small", self.posts, whole, "POST", 1_000)
        sockets = load.restarts(running.target, "/echo", self.sockets)
        began = time.monotonic()
        for kind in in_turns(TIMES):
            if time.monotonic() - began > seconds:
                break
            operator.does(kind)
        took = time.monotonic() - began
        got, posted, talked = (each.ended() for each in (wrk, posts, sockets))
        kinds = [load.failures_by_kind(each) for each in (got, posted, talked)]
        return {
            **operator.values(),
            "seconds": took,
            "gets": got["requests"],
            "posts": posted["answers"],
            "messages": talked["messages"],
            "restarts": talked["restarts"],
            "failures": got["failures"] + posted["failures"],
            "lost_sockets": talked["failures"],
            "kinds": {kind: count for of_one in kinds for kind, count in of_one.items()},
        }


def in_turns(times):
    """Each word as often as it is to be, all of them spread over the whole."""
    places = [((number + 0.5) / count, word) for word, count in times.items() for number in range(count)]
    return [word for _, word in sorted(places)]


class Operator:
    """Who does it, with the command line."""

    def __init__(self, running):
        self._running = running
        self._name = contestants.DEPLOYED[0]
        self._took = {kind: [] for kind in TIMES}
        self._wrong = 0

    def does(self, kind):
        began = time.monotonic()
        getattr(self, f"_{kind}")()
        self._took[kind].append((time.monotonic() - began) * 1e3)

    def values(self):
        deploys = self._took["deploy"]
        return {
            **{f"{kind}_count": len(took) for kind, took in self._took.items()},
            **{"deploy_p50": statistics.median(deploys), "deploy_max": max(deploys)},
            "wrong": self._wrong,
        }

    def _deploy(self):
        other = contestants.DEPLOYED[1 - contestants.DEPLOYED.index(self._name)]
        self._running.contestant.deploy(self._running.site, other)
        self._expect(other)

    def _rollback(self):
        self._say("rollback")
        self._say("ps:wait")
        # Each release was of the other name than the one before.
        self._expect(contestants.DEPLOYED[1 - contestants.DEPLOYED.index(self._name)])

    def _scaling(self):
        for change in ("web+2", "web-2"):
            self._say("ps:scale", change)
            self._say("ps:wait")

    def _restart(self):
        # What comes next does not wait for its end.
        self._say("ps:restart")

    def _expect(self, name):
        self._name = name
        self._wrong += sum(asked_name(self._running.site.port) != name for _ in range(10))

    def _say(self, *words):
        self._running.contestant.say(self._running.site, *words)


def asked_name(port):
    """Which release answers on a new connection."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/name")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def every():
    """All scenarios of this kind."""
    return [Deploys()]
