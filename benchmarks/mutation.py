"""How many faults in the code do the tests find?

    pip install mutmut==3.8.1
    python -m benchmarks.mutation --sample 200

mutmut changes one expression of one function at a time: a mutant. A random sample of the mutants of
data/, training and evaluation/ is run, each against the tests that call its function; prints the
survivors, and the share that is killed with its 95 % Wilson interval. Mutants that change nothing
but the words of a message are left out. The mutants are in ``mutants/``; ``mutmut show NAME``
prints one.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from scipy.stats import binomtest

FOLDER = Path("mutants")
SURVIVED, NOT_TESTED = 0, 33
_WORDS = re.compile(r"""("[^"]* [^"]*"|'[^']* [^']*'|"XX[^"]*XX"|'XX[^']*XX')""")


def results() -> dict[str, int | None]:
    """Read the exit status of the tests of each mutant; None where they have not been run."""
    found: dict[str, int | None] = {}
    for path in FOLDER.rglob("*.meta"):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def difference(name: str) -> str:
    """Return the changed lines of a mutant."""
    lines = get_diff_for_mutant(name).splitlines()
    return "\n".join(line for line in lines if re.match(r"[-+](?![-+]{2} )", line))


def changes_words_only(diff: str) -> bool:
    """Check whether a mutant differs in nothing but the words of a message."""
    old, new = (
        [line[1:] for line in diff.splitlines() if line.startswith(sign)] for sign in ("-", "+")
    )
    changed = [(a, b) for a, b in zip(old, new) if a != b]
    if len(old) != len(new):
        return False
    return all(_WORDS.search(a) and _WORDS.sub("", a) == _WORDS.sub("", b) for a, b in changed)


def draw(size: int, seed: int) -> dict[str, str]:
    """Draw mutants: name -> changed lines."""
    names = sorted(results())
    random.Random(seed).shuffle(names)
    drawn: dict[str, str] = {}
    for name in names:
        diff = difference(name)
        if not changes_words_only(diff):
            drawn[name] = diff
        if len(drawn) == size:
            break
    return drawn


def main() -> None:
    """Run a sample of the mutants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = ["mutmut", "run", "--max-children", "1"]
    if not FOLDER.exists():
        subprocess.run([*run, "nothing"], check=False)  # makes the mutants, and times the tests
    drawn = draw(options.sample, options.seed)
    subprocess.run([*run, *drawn], check=True)
    status = results()
    survivors = [name for name in drawn if status[name] in (SURVIVED, NOT_TESTED)]
    for name in survivors:
        print(f"{name}{' (not tested)' * (status[name] == NOT_TESTED)}\n{drawn[name]}\n")
    killed = len(drawn) - len(survivors)
    interval = binomtest(killed, len(drawn)).proportion_ci(0.95, "wilson")
    print(
        f"{killed} of {len(drawn)} mutants killed: {killed / len(drawn):.0%} "
        f"({interval.low:.0%} to {interval.high:.0%})"
    )


if __name__ == "__main__":
    main()
