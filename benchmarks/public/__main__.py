"""Public tasks, measured beside published results; one command per row.

    python -m benchmarks.public              # list the rows
    python -m benchmarks.public tworoom      # measure one: three training seeds
    python -m benchmarks.public cartpole --smoke

Each seed appends a line to ``results/public.jsonl``; data and runs go to ``results/public/NAME``.
The summary has the mean over seeds with a 95 % interval (Student's t over seeds for returns, Wilson
over all goals for success rates), CPU minutes of all processes, and steps of the real environment.
Some rows need packages, which are named if they are missing. ``--smoke`` checks that a row runs;
its value means nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.machine import describe_machine
from benchmarks.public.rows import ROWS, Row
from worldmodel.errors import InterruptedRunError

RESULTS = Path("results")


def cpu_minutes() -> float:
    """CPU time of this process and its finished children so far, in minutes."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used) / 60


def measure(name: str, seed: int, smoke: bool) -> dict[str, Any]:
    """Measure a row with one training seed, and append the result to the file of results."""
    folder = RESULTS / "public" / (f"{name}_smoke" if smoke else name)
    before = cpu_minutes()
    score = ROWS[name].measure(seed, folder, smoke)
    line = {
        "row": name,
        "smoke": smoke,
        "seed": seed,
        "value": score.value,
        "trials": score.trials,
        "real_steps": score.real_steps,
        "cpu_minutes": round(cpu_minutes() - before, 1),
        "details": score.details,
    }
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "public.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def interval(row: Row, lines: list[dict[str, Any]]) -> tuple[float, float]:
    """Compute the 95 % interval of a row's value over its seeds."""
    values = [line["value"] for line in lines]
    if row.metric == "success":
        trials = sum(line["trials"] for line in lines)
        reached = round(sum(line["value"] * line["trials"] / 100 for line in lines))
        found = stats.binomtest(reached, trials).proportion_ci(0.95, "wilson")
        return 100 * float(found.low), 100 * float(found.high)
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def summary(name: str, lines: list[dict[str, Any]]) -> str:
    """Format a measured row beside the published results, as Markdown."""
    row = ROWS[name]
    low, high = interval(row, lines)
    between = "one seed, no interval" if np.isnan(low) else f"{low:.1f} to {high:.1f}"
    mean = statistics.fmean(line["value"] for line in lines)
    seeds = ", ".join(f"{line['value']:.1f}" for line in lines)
    minutes = statistics.fmean(line["cpu_minutes"] for line in lines)
    steps = max(line["real_steps"] for line in lines)
    published = "; ".join(f"{p.method} {p.value}" for p in row.published)
    if row.published:
        published += f" ({'; '.join(dict.fromkeys(p.source for p in row.published))})"
    more = ""
    if row.metric == "success":
        reached = sum(line["details"]["random_successes"] for line in lines)
        rate = 100 * reached / sum(line["trials"] for line in lines)
        more = f"; random actions: {rate:.1f}"
    return (
        f"| {row.title} | {mean:.1f} {row.unit} ({between}; seeds: {seeds}{more}) | "
        f"{row.target} | {minutes:.0f} CPU minutes, {steps:,} real steps | {published} | "
        f"{row.differences} |"
    )


def seed_number(text: str) -> int:
    """Parse a training seed, for argparse."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; expected 0 to {2**32 - 1}")
    return int(text)


def main() -> None:
    """Parse the command line, measure, and print the row."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.public",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("row", nargs="?", choices=ROWS)
    parser.add_argument("--seeds", type=seed_number, nargs="+", default=[0, 1, 2])
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.row is None:
        for name, row in ROWS.items():
            print(f"{name:14} {row.title} (target: {row.target} {row.unit})")
        return
    row = ROWS[options.row]
    missing = [package for package in row.needs if find_spec(package) is None]
    if missing:
        parser.error(f"{options.row} needs {', '.join(missing)}: pip install {row.install}")
    print(describe_machine())
    seeds = options.seeds[:1] if options.smoke else options.seeds
    lines: list[dict[str, Any]] = []
    try:
        for seed in seeds:
            lines.append(measure(options.row, seed, options.smoke))
    except (KeyboardInterrupt, InterruptedRunError):
        if not lines:
            parser.exit(130, "Stopped before a seed was finished.\n")
        left = " ".join(str(seed) for seed in seeds[len(lines) :])
        parser.exit(
            130,
            f"Stopped. Finished seeds are in {RESULTS / 'public.jsonl'}; measure the "
            f"others with --seeds {left}\n",
        )
    if options.smoke:
        print("A smoke run: it shows that the row runs, and its value means nothing.")
    print("| task | ours | target | cost of a seed | published | differences |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(summary(options.row, lines))


if __name__ == "__main__":
    main()
