"""The speed suite: what the package does, beside a peer or the limit of the machine.

    OMP_NUM_THREADS=1 python -m benchmarks                   # all parts but train and device
    OMP_NUM_THREADS=1 python -m benchmarks sampling updates  # some of them
    python -m benchmarks growth --run results/<run>
    python -m benchmarks device                              # updates on a GPU
    python -m benchmarks --smoke                             # every part in a tiny form

Functions that are compared take turns, so that other load on the machine affects all of them. The
figures are medians. The table goes to ``results/speed.md`` and ``results/speed.json``, with
machine, versions and command. Gymnasium's pixel wrappers, a peer of `env`, need
opencv-python-headless.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.speed import device, dreams, envs, growth, sampling, updates
from benchmarks.speed.table import CLOCKS, Context, Row, markdown, write
from worldmodel import Run
from worldmodel.errors import RunError

PARTS: dict[str, Callable[[Context], Iterator[Row]]] = {
    "env": envs.env,
    "collection": envs.collection,
    "sampling": sampling.sampling,
    "updates": updates.updates,
    "dream": dreams.dream,
    "rollout": dreams.rollout,
    "planning": dreams.planning,
    "growth": growth.growth,
    "train": updates.train,
    "device": device.device,
}
OPTIONAL = ("train", "device")
REPEATS = 9


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"{', '.join(PARTS)} (default: all but {' and '.join(OPTIONAL)})",
    )
    parser.add_argument(
        "--run", type=Path, help="run of the double pendulum (default: train one, smoke)"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="cpu: CPU time of the process, for one thread on a busy machine (default: wall)",
    )
    parser.add_argument("--output", type=Path, default=Path("results/speed"))
    parser.add_argument("--smoke", action="store_true", help="check that every part runs")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"unknown part {sorted(unknown)[0]!r}; expected {', '.join(PARTS)}")
    if arguments.repeats < 1:
        parser.error(f"--repeats is {arguments.repeats}; expected 1 or more")
    if arguments.run is not None:
        try:
            Run(arguments.run).require_decoder()
        except (RunError, ValueError) as error:
            parser.error(f"--run: {error}")
    return arguments


def main() -> None:
    """Measure, print and write the table."""
    arguments = parse()
    chosen = arguments.parts or [part for part in PARTS if part not in OPTIONAL]
    print(describe_machine(), flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        repeats = 1 if arguments.smoke else arguments.repeats
        clock = CLOCKS[arguments.clock][0]
        context = Context(Path(folder), repeats, arguments.smoke, arguments.run, clock)
        for part in chosen:
            found = list(PARTS[part](context))
            print(f"\n{markdown(found)}", flush=True)
            rows += found
            write(arguments.output, rows, arguments.clock)


if __name__ == "__main__":
    main()
