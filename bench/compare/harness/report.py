"""How results are told: raw lines for programs, tables for people. Both files are only appended to."""

import collections
import json
import statistics

# What a compared value is set against, where it took part.
BASES = ["relay", "nginx", "haproxy"]


def record(folder, date, scenario, rows, context):
    """Appends the runs of one scenario; returns the text for people."""
    folder.mkdir(parents=True, exist_ok=True)
    text = render(scenario, rows, context)
    with open(folder / f"{date}-{scenario.name}.md", "a") as file:
        file.write(text + "\n")
    with open(folder / f"{date}-{scenario.name}.jsonl", "a") as file:
        for row in rows:
            file.write(json.dumps({**context, **row}) + "\n")
    return text


def render(scenario, rows, context):
    """One section: what was asked, where and with what, and a table per case."""
    versions = ", ".join(f"{name} {version}" for name, version in context["versions"].items())
    lines = [
        f"## {scenario.name}, {context['time']}",
        "",
        scenario.question,
        "",
        f"- commit {context['commit']}, `{context['command']}`",
        f"- {context['machine']}; load average before the run {context['load_average']:.2f}",
        f"- {versions}",
        f"- median of {context['rounds']} alternating rounds of {context['seconds']} s (least–most)",
    ]
    for label, _ in scenario.cases:
        of_case = [row for row in rows if row["case"] == label]
        lines += ["", *([f"### {label}", ""] if label else []), *_table(scenario, of_case)]
    return "\n".join(lines) + "\n"


def _table(scenario, rows):
    runs = collections.defaultdict(dict)
    for row in rows:
        runs[row["contestant"]][row["round"]] = row
    columns = [column for column in scenario.columns if any(column.key in row for row in rows)]
    compared = [(column, base) for column in columns if column.compared for base in BASES if base in runs]
    several = len({column.key for column, _ in compared}) > 1
    ratios = [f"× {base}" + f", {column.title}" * several for column, base in compared]
    titles = ["", *(column.title for column in columns), *ratios]
    has_kinds = any(row.get("kinds") for row in rows)
    lines = [_line(titles + ["what broke"] * has_kinds), _line(["---"] + ["---:"] * (len(titles) - 1 + has_kinds))]
    for contestant, by_round in runs.items():
        cells = [_spread(by_round, column) for column in columns]
        cells += [_ratio(by_round, runs[base], column.key) for column, base in compared]
        cells += [_kinds(by_round)] * has_kinds
        lines.append(_line([contestant, *cells]))
    errors = sorted({f"- {row['contestant']}, round {row['round']}: {row['error']}" for row in rows if "error" in row})
    return lines + ([""] + errors if errors else [])


def _line(cells):
    return "| " + " | ".join(cells) + " |"


def _spread(by_round, column):
    values = [row[column.key] for row in by_round.values() if column.key in row]
    if not values:
        return "–"
    middle, least, most = (f"{each:,.{column.digits}f}" for each in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}–{most})"


def _ratio(by_round, base_by_round, key):
    """The median of the ratios within each round: what the machine does in a round, it does to both."""
    ratios = [
        row[key] / base_by_round[number][key]
        for number, row in by_round.items()
        if key in row and base_by_round.get(number, {}).get(key)
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else "–"


def _kinds(by_round):
    total = collections.Counter()
    for row in by_round.values():
        total.update(row.get("kinds", {}))
    return ", ".join(f"{kind} {count}" for kind, count in sorted(total.items())) or "nothing"
