"""The command: build, find who is there, run rounds, record."""

import argparse
import datetime
import os
import shlex
import shutil
import signal
import subprocess
import sys

from . import contestants, deploys, edge, machine, processes, report, scenarios
from .load import LoadFailed
from .site import Unready


def main():
    scenario_by_name = {each.name: each for each in [*scenarios.every(), *deploys.every(), *edge.every()]}
    arguments = parse_arguments(scenario_by_name)
    if problem := machine.check():
        print(problem, file=sys.stderr)
        return 1
    # An end by signal runs the `finally` blocks too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    machine.raise_descriptor_limit()
    processes.adopt_orphans()
    try:
        if arguments.build:
            build()
        for name in arguments.scenarios or scenario_by_name:
            run_scenario(scenario_by_name[name], arguments)
    except KeyboardInterrupt:
        return 130
    finally:
        processes.end_descendants()
    return 0


def parse_arguments(scenario_by_name):
    parser = argparse.ArgumentParser(prog="bench/compare/run", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(scenario_by_name)}; all")
    parser.add_argument("--rounds", type=int, default=7, help="how often each contestant has its turn (7)")
    parser.add_argument("--seconds", type=int, help="how long one turn lasts (each scenario has its own)")
    parser.add_argument("--only", metavar="NAMES", help="contestants, with commas between")
    parser.add_argument("--no-build", dest="build", action="store_false", help="take what is built")
    parser.add_argument("--no-record", dest="record", action="store_false", help="print, and append nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - set(scenario_by_name):
        parser.error(f"no scenario {', '.join(sorted(unknown))}")
    arguments.only = arguments.only.split(",") if arguments.only else None
    return arguments


def build():
    """Builds what is ours and gets what no package of the system has. Pingora needs cmake; what fails leaves a
    contestant that is missing."""
    contestants.Envoy().get()
    packages = [machine.REPOSITORY, machine.COMPARE / "tools"]
    if shutil.which("cmake"):
        packages.append(machine.COMPARE / "pingora")
    for package in packages:
        print(f"building {package.relative_to(machine.REPOSITORY.parent)}", file=sys.stderr)
        subprocess.run(["cargo", "build", "--release", "--quiet", "--locked"], cwd=package, check=False)


def run_scenario(scenario, arguments):
    present = find_contestants(scenario, arguments.only)
    seconds = arguments.seconds or scenario.seconds
    context = {
        "time": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": machine.commit(),
        "command": shlex.join(["bench/compare/run", *sys.argv[1:]]),
        "machine": machine.describe(),
        "load_average": os.getloadavg()[0],
        "versions": {
            **{each.name: each.version() for each in present if each.is_proxy},
            **machine.tool_versions(),
        },
        "rounds": arguments.rounds,
        "seconds": seconds,
    }
    if context["load_average"] > 0.5:
        print(f"load average is {context['load_average']:.2f}: others are working here", file=sys.stderr)
    rows = []
    for number in range(1, arguments.rounds + 1):
        for label, case in scenario.cases:
            for contestant in present:
                if not scenario.takes(contestant, case):
                    continue
                print(f"{scenario.name} {label} round {number}: {contestant.name}", file=sys.stderr)
                row = {"case": label, "contestant": contestant.name, "round": number}
                rows.append({**row, **run_once(scenario, contestant, case, seconds)})
    if arguments.record:
        text = report.record(machine.REPOSITORY / "bench" / "results", context["time"][:10], scenario, rows, context)
    else:
        text = report.render(scenario, rows, context)
    print(text)


def find_contestants(scenario, only):
    """Those who are here; the others are named and skipped."""
    wanted = [each for each in scenario.contestants() if only is None or each.name in only]
    for each in wanted:
        if not each.program():
            print(f"{each.name} is missing, skipped ({each.install})", file=sys.stderr)
    return [each for each in wanted if each.program()]


def run_once(scenario, contestant, case, seconds):
    """One turn of one contestant. Its failure is a result, and the others go on."""
    try:
        return scenario.run(contestant, case, seconds)
    except (Unready, LoadFailed, subprocess.SubprocessError, OSError) as error:
        print(f"{contestant.name}: {error}", file=sys.stderr)
        return {"error": " ".join(str(error).split())[:300]}
