"""What schemathesis is told of the daemon that schema.py runs: which things there are, and what must not be begun.

A request stays as it was made up, but for what these lines put in its place, and that follows from the request alone:
it can be repeated.
"""

import atexit
import json
import os
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import IgnoredAuth

# Names by operation and parameter, and by parameter alone.
THERE = json.loads(Path(os.environ["SCHEMA_THERE"]).read_text())
ANSWERS = defaultdict(Counter)
requests = 0


@schemathesis.hook
def before_call(context, case, kwargs):
    """Lets most requests be about something that there is, and none do harm."""
    global requests
    requests += 1
    label, drawn = case.operation.label, draw(case)
    if not is_negative(case, ParameterLocation.PATH):
        for name in case.path_parameters:
            there = THERE.get(f"{label} {name}") or THERE.get(name)
            # One in four is about what there is none of; but what is taken away is never what others look for, which
            # schemathesis has found in answers.
            if there and (drawn % 4 or case.method == "DELETE"):
                case.path_parameters[name] = there[drawn // 4 % len(there)]
    if "Request-Id" in (case.headers or {}):
        # A request of the same one is a repetition, which has no effect.
        case.headers["Request-Id"] = f"{requests}"
    if not is_negative(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        fit(label, case.body, drawn)


def fit(label, body, drawn):
    """What would run, be spoken to or be many."""
    match label:
        case "POST /apps/{app}/dynos":
            body["command"] = "true"
            body.pop("env", None)
        case "PATCH /apps/{app}/formation":
            for update in body["updates"]:
                if update.get("quantity") is not None:
                    update["quantity"] = min(drawn % 3, 2)
        case "POST /apps/{app}/log-drains":
            scheme, rest = body["url"].split("://", 1)
            body["url"] = f"{scheme}://127.0.0.1:9{'/' + str(drawn) if scheme.startswith('http') else ''}"
        case "POST /apps/{app}/sni-endpoints" | "PATCH /apps/{app}/sni-endpoints/{endpoint}":
            # Nobody makes one up.
            if drawn % 4:
                body.update(THERE["pairs"][drawn // 4 % len(THERE["pairs"])])
        case "PATCH /pipelines/{pipeline}":
            # Others look for it by its name.
            body["name"] = "line"
        case "POST /apps/{app}/builds":
            if drawn % 4:
                body["source_blob"] = {**body["source_blob"], "url": THERE["sources"][0], "checksum": None}
        case "POST /apps/{app}/releases":
            if drawn % 4 and isinstance(body.get("release"), str):
                body.update(release="1", slug=None)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Whoever comes with wrong tokens all the time is told to wait, which lets him in as little as 401 does. That no token
    at all is 401 has been seen by then."""
    return not (isinstance(failure, IgnoredAuth) and "got `429 " in failure.message)


@schemathesis.hook
def after_call(context, case, response):
    ANSWERS[case.operation.label][response.status_code] += 1


@atexit.register
def tell():
    Path(os.environ["SCHEMA_ANSWERS"]).write_text(json.dumps(ANSWERS))


def is_negative(case, location):
    return case.meta is not None and case.meta.is_negative_at(location)


def draw(case):
    """A number that follows from the request."""
    text = repr((case.operation.label, case.path_parameters, case.query, case.body))
    return zlib.crc32(text.encode("utf-8", "surrogateescape"))
