#!/usr/bin/env python3
"""schemathesis, from PyPI, against the Platform API: is everything as src/control/openapi.json says?

Every operation is asked in many ways, right and wrong, and each answer compared with the description; and each has to
have been answered well at least once. usage: schema.py [OPTION OF schemathesis run...]
"""

import json
import os
import subprocess
import sys
import tarfile
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

    @staticmethod
    def upload(url, archive):
        """Sends an archive to a place that was told."""
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=archive), timeout=60).close()


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


# Whatever an operation takes away there is several times.
ENDED = ["ended-0", "ended-1", "ended-2"]


def furnish(mesh, api):
    """Makes what requests can be about. Returns its names by parameter, and by operation and parameter those that the
    operation alone is to be about: what it takes away, where it was told, whose else nothing is."""
    for app in ["made", "promoted", *ENDED]:
        api.ask("POST", "/apps", {"name": app})
    names = {"app": ["shop", "made"], "dyno": ["web.1", "web", "worker.1"], "type": ["web"], "size": ["basic", "eco"]}
    names["DELETE /apps/{app} app"] = ENDED
    # The dynos of others come and go with their number.
    for ask in ["DELETE /apps/{app}/dynos/{dyno}", "POST /apps/{app}/dynos/{dyno}/actions/stop"]:
        names |= {f"{ask} app": ["prepared"], f"{ask} dyno": ["web.1"]}
    for part in [deployed(mesh, api), spoken(api), secured(mesh, api), promoted(api), attached(api)]:
        names |= part
    return names


def deployed(mesh, api):
    """Slugs, releases and builds: made has them."""
    deploy = [BINARY, "deploy", mesh.dir / "slug", "-a", "made", "--config", mesh.config]
    subprocess.run(deploy, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    slug = api.ask("GET", "/apps/made/releases")[0]["slug"]["id"]
    api.ask("PATCH", "/apps/prepared/config-vars", {"A": "1"})
    output = api.ask("GET", "/apps/prepared/releases")[0]["output_stream_url"]
    built, sent = [api.ask("POST", "/sources")["source_blob"] for _ in range(2)]
    with tarfile.open(mesh.dir / "slug.tar", "w") as archive:
        archive.add(mesh.dir / "slug/Procfile", "Procfile")
    api.upload(built["put_url"], (mesh.dir / "slug.tar").read_bytes())
    build = api.ask("POST", "/apps/made/builds", {"source_blob": {"url": built["get_url"]}})
    of_made = ["slugs/{slug}", "releases/{release}", "releases/{release}/config-vars", "builds/{build}"]
    return {
        "slug": [slug], "release": ["1", "v1"], "build": [build["id"]], "sources": [built["get_url"]],
        "GET /release-output/{secret} secret": [secret(output)],
        "GET /build-output/{secret} secret": [secret(build["output_stream_url"])],
        "PUT /source-uploads/{secret} secret": [secret(sent["put_url"])],
        **{f"GET /apps/{{app}}/{path} app": ["made"] for path in of_made},
    }


def secret(url):
    return url.rsplit("/", 1)[1]


def spoken(api):
    """Logs and drains of shop."""
    log = api.ask("POST", "/apps/shop/log-sessions", {"lines": 10})["logplex_url"]
    urls = [f"https://127.0.0.1:9/{name}" for name in ["stays", *ENDED]]
    stays, *ended = [api.ask("POST", "/apps/shop/log-drains", {"url": url})["id"] for url in urls]
    removal = "DELETE /apps/{app}/log-drains/{drain}"
    return {"ticket": [secret(log)], "drain": [stays], f"{removal} app": ["shop"], f"{removal} drain": ended}


def secured(mesh, api):
    """Domains and certificates of shop."""
    domains, pairs, endpoints = [f"{name}.example.com" for name in ["www", *ENDED]], [], []
    authority = Authority(mesh.dir / "ca")
    for domain in domains:
        api.ask("POST", "/apps/shop/domains", {"hostname": domain})
        chain, key = mesh.dir / f"{domain}.pem", mesh.dir / f"{domain}.key"
        authority.sign([domain], chain, key)
        pairs.append({"certificate_chain": chain.read_text(), "private_key": key.read_text()})
        endpoints.append(api.ask("POST", "/apps/shop/sni-endpoints", pairs[-1])["name"])
    without, unsecured = "DELETE /apps/{app}/domains/{domain}", "DELETE /apps/{app}/sni-endpoints/{endpoint}"
    return {
        "domain": domains[:1], "endpoint": endpoints[:1], "pairs": pairs,
        f"{without} app": ["shop"], f"{without} domain": domains[1:],
        f"{unsecured} app": ["shop"], f"{unsecured} endpoint": endpoints[1:],
    }


def promoted(api):
    """Pipelines, and a promotion from made."""
    for pipeline in ["line", *ENDED]:
        api.ask("POST", "/pipelines", {"name": pipeline})
    places = [("made", "line", "staging"), ("promoted", "line", "production"), ("prepared", ENDED[0], "staging")]
    stays, _, ended = [
        api.ask("POST", "/pipeline-couplings", {"app": app, "pipeline": pipeline, "stage": stage})["id"]
        for app, pipeline, stage in places
    ]
    promotion = api.ask("POST", "/pipeline-promotions", {
        "pipeline": {"id": "line"}, "source": {"app": {"id": "made"}}, "targets": [{"app": {"id": "promoted"}}],
    })
    return {
        "pipeline": ["line"], "coupling": [stays], "promotion": [promotion["id"]],
        "DELETE /pipelines/{pipeline} pipeline": ENDED[1:],
        "DELETE /pipeline-couplings/{coupling} coupling": [ended],
        "GET /apps/{app}/pipeline-couplings app": ["made"],
    }


def attached(api):
    """Add-ons of shop."""
    for addon in ["redis-main", *ENDED]:
        create = {"plan": "redis", "name": addon, "config": {"url": "redis://127.0.0.1"}}
        create["attachment"] = {"name": addon.upper().replace("-", "_")}
        api.ask("POST", "/apps/shop/addons", create)
    attach = [{"addon": "redis-main", "app": "shop", "name": f"A{number}"} for number in range(3)]
    forget = "DELETE /apps/{app}/addons/{addon}"
    return {
        "addon": ["redis-main"], "attachment": ["REDIS_MAIN"],
        "GET /apps/{app}/addon-attachments/{attachment} app": ["shop"],
        f"{forget} app": ["shop"], f"{forget} addon": ENDED,
        "DELETE /addon-attachments/{attachment} attachment": [
            api.ask("POST", "/addon-attachments", it)["id"] for it in attach
        ],
    }


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
