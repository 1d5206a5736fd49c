#!/usr/bin/env python3
"""schemathesis, from PyPI, against the Platform API: is everything as src/control/openapi.json says?

Every operation is asked in many ways, right and wrong, and each answer compared with the description; and each has to
have been answered well at least once. usage: schema.py [OPTION OF schemathesis run...]
"""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from mesh import BINARY, Mesh, free_ports, home_with, venv
from pki import Authority

PACKAGES = ["schemathesis==4.32.5"]
HERE = Path(__file__).resolve().parent
# Those that no request of this run can do well, each with its reason.
NEVER_WELL = {
    "GET /openapi.json": "schemathesis has read it to begin with, and does not ask again",
    "PUT /slug-uploads/{secret}": "nobody makes up an archive; deploys are checked with real ones elsewhere",
}


class Api:
    """The Platform API of a mesh, asked with a token that may do all."""

    def __init__(self, mesh, port):
        self.url = f"http://127.0.0.1:{port}"
        command = [BINARY, "token:create", "-s", "admin", "--config", mesh.config]
        self.token = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def ask(self, method, path, body=None):
        """What the answer has. It has to be one of success."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data)
        request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from None


def start():
    """A mesh with apps of the file and of commands, and its API."""
    home = home_with({})
    for name, procfile in {
        "shop": f"web: {BINARY} hello\nworker: sleep 1000\n",
        "prepared": f"web: {BINARY} hello\nrelease: echo prepared\n",
        "slug": f"web: {BINARY} hello\n",
    }.items():
        (home / name).mkdir()
        (home / name / "Procfile").write_text(procfile)
    apps = "\n".join(f'[apps.{name}]\ndir = "{home / name}"\n' for name in ["shop", "prepared"])
    (port,) = free_ports(1)
    mesh = Mesh(home, apps, admin=f'api = "127.0.0.1:{port}"')
    return mesh, Api(mesh, port)


def furnish(mesh, api):
    """Makes what requests can be about. Returns it by parameter, and by operation and parameter what an operation
    takes away."""
    several = [f"{number}" for number in range(3)]
    ended = [f"ended-{number}" for number in several]
    for app in ["made", "promoted", *ended]:
        api.ask("POST", "/apps", {"name": app})
    deploy = [BINARY, "deploy", mesh.dir / "slug", "-a", "made", "--config", mesh.config]
    subprocess.run(deploy, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    slug = api.ask("GET", "/apps/made/releases")[0]["slug"]["id"]
    api.ask("PATCH", "/apps/prepared/config-vars", {"A": "1"})
    output = api.ask("GET", "/apps/prepared/releases")[0]["output_stream_url"]
    log = api.ask("POST", "/apps/shop/log-sessions", {"lines": 10})["logplex_url"]

    authority, pairs = Authority(mesh.dir / "ca"), []
    for number in several:
        chain, key = mesh.dir / f"{number}.pem", mesh.dir / f"{number}.key"
        authority.sign([f"{number}.example.com"], chain, key)
        pairs.append({"certificate_chain": chain.read_text(), "private_key": key.read_text()})
    endpoints = [api.ask("POST", "/apps/shop/sni-endpoints", pair)["name"] for pair in [*pairs, pairs[0]]]

    domains = [f"{number}.example.com" for number in [*several, "www"]]
    drains = [f"https://127.0.0.1:9/{number}" for number in several]
    for domain in domains:
        api.ask("POST", "/apps/shop/domains", {"hostname": domain})
    drains = [api.ask("POST", "/apps/shop/log-drains", {"url": drain})["id"] for drain in drains]

    for pipeline in ["line", *ended]:
        api.ask("POST", "/pipelines", {"name": pipeline})
    places = [("made", "line", "staging"), ("promoted", "line", "production"), ("prepared", "ended-0", "staging")]
    couplings = {
        app: api.ask("POST", "/pipeline-couplings", {"app": app, "pipeline": pipeline, "stage": stage})["id"]
        for app, pipeline, stage in places
    }
    promotion = api.ask("POST", "/pipeline-promotions", {
        "pipeline": {"id": "line"}, "source": {"app": {"id": "made"}}, "targets": [{"app": {"id": "promoted"}}],
    })["id"]

    for addon in ["redis-main", *ended]:
        plan = {"plan": "redis", "name": addon, "config": {"url": "redis://127.0.0.1"}, "confirm": "shop"}
        api.ask("POST", "/apps/shop/addons", {**plan, "attachment": {"name": addon.upper().replace("-", "_")}})
    attach = {"addon": "redis-main", "app": "shop"}
    attached = [api.ask("POST", "/addon-attachments", {**attach, "name": f"A{number}"})["id"] for number in several]
    there = {
        "app": ["shop", "made"], "dyno": ["web.1", "web", "worker.1"], "type": ["web"], "size": ["basic", "eco"],
        "slug": [slug], "release": ["1", "v1"], "domain": ["www.example.com"], "endpoint": [endpoints[-1]],
        "drain": drains[:1], "pipeline": ["line"], "coupling": [couplings["made"]], "promotion": [promotion],
        "addon": ["redis-main"], "attachment": ["REDIS_MAIN"], "ticket": [log.rsplit("/", 1)[1]],
        "secret": [output.rsplit("/", 1)[1]], "pairs": pairs,
    }
    taken = {
        "DELETE /apps/{app} app": ended,
        "DELETE /apps/{app}/domains/{domain} domain": domains[:-1],
        "DELETE /apps/{app}/sni-endpoints/{endpoint} endpoint": endpoints[:-1],
        "DELETE /apps/{app}/log-drains/{drain} drain": drains[1:],
        "DELETE /pipelines/{pipeline} pipeline": ended[1:],
        "DELETE /pipeline-couplings/{coupling} coupling": [couplings["prepared"]],
        "DELETE /apps/{app}/addons/{addon} addon": ended,
        "DELETE /addon-attachments/{attachment} attachment": attached,
    }
    # These things are made's, or shop's, alone.
    of = {
        "made": ["GET /apps/{app}/slugs/{slug}", "GET /apps/{app}/releases/{release}",
                 "GET /apps/{app}/releases/{release}/config-vars", "GET /apps/{app}/pipeline-couplings"],
        "shop": [operation for operation in taken if "{app}/" in operation],
    }
    whose = {f"{operation.rsplit(' ', 1)[0] if app == 'shop' else operation} app": [app]
             for app, operations in of.items() for operation in operations}
    return there | taken | whose


def never_well(description, answers):
    """The operations that nobody was answered well, with what was answered."""
    operations = [f"{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods]
    answered = {operation: answers.get(operation, {}) for operation in operations if operation not in NEVER_WELL}
    print(f"{sum(sum(it.values()) for it in answers.values())} requests to {len(operations)} operations")
    return [f"{it}: {statuses}" for it, statuses in answered.items() if not any(code[0] == "2" for code in statuses)]


def main(options):
    mesh, api = start()
    try:
        there = mesh.dir / "there.json"
        answers = mesh.dir / "answers.json"
        there.write_text(json.dumps(furnish(mesh, api)))
        places = {"SCHEMA_THERE": str(there), "SCHEMA_ANSWERS": str(answers), "PYTHONPATH": str(HERE)}
        command = [
            venv("schema-venv", PACKAGES) / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run",
            f"{api.url}/openapi.json", "--header", f"Authorization: Bearer {api.token}", "--no-color", *options,
        ]
        ran = subprocess.run(command, env={**os.environ, **places}, cwd=mesh.dir)
        never = never_well(api.ask("GET", "/openapi.json"), json.loads(answers.read_text()))
        if never:
            print("never answered well:", *never, sep="\n  ")
        return 1 if ran.returncode or never else 0
    finally:
        mesh.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
