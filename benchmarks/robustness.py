"""What is lost when a process is killed, a disk is full, or many processes work at once?

    python -m benchmarks.robustness kills --times 50
    python -m benchmarks.robustness full-disk --step 100 --until 12000
    python -m benchmarks.robustness processes --count 10
    python -m benchmarks.robustness soak --minutes 60

Every trial compares its files with those of an undisturbed process, to the byte, and looks for
tracebacks and files left over. Prints one line per trial, and exits with 1 if any of them failed.
For Linux, because the processes are forks of this one, which has imported everything already;
``full-disk`` mounts a small file system for each trial, so it needs root.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

import worldmodel.evaluation.run_evaluation
import worldmodel.rl.loop
import worldmodel.settings
import worldmodel.training
from worldmodel import cli
from worldmodel.checks import check_path
from worldmodel.data.index import read_index

SETTINGS = ("evaluation.probe.updates=20", "evaluation.resamples=20")
EVALUATION = tuple(word for setting in SETTINGS for word in ("--set", setting))
TRAIN = ("train", "--preset", "smoke", *EVALUATION)
AGENT = (
    *("--steps", "256", "--envs", "4", "--rounds", "1", "--dream-steps", "10"),
    *("--set", "agent.eval_points=1", "--set", "agent.eval_episodes=2"),
    *("--set", "agent.max_eval_steps=20", "--set", "agent.loop.max_steps=20"),
    *("--set", "agent.loop.episodes=4", "--set", "agent.loop.updates=10"),
)
LIMIT_SECONDS = 900
Usage = namedtuple("Usage", "total used free")


def start(words: tuple[str, ...], folder: Path, log: Path | None = None) -> int:
    """Fork a process that runs a command in a folder; what it prints goes to a file."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        output = os.open(log or "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = ["worldmodel", *words]
        cli.main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def wait(pid: int, limit: float = LIMIT_SECONDS) -> int:
    """Wait for a process, and return its exit status; kill one that hangs."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    kill(pid)
    os.waitpid(pid, 0)
    raise TimeoutError(f"process {pid} was still running after {limit:.0f} s")


def kill(pid: int) -> None:
    """Kill a process and those that it started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(pid, signal.SIGKILL)


def execute(words: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Run a command to its end; return its exit status and what it printed."""
    with tempfile.NamedTemporaryFile() as file:
        status = wait(start(words, folder, Path(file.name)))
        return status, Path(file.name).read_text(errors="replace")


def fingerprints(folder: Path) -> dict[str, str]:
    """Hash all files below a folder that the same command writes with the same bytes.

    The run's directory is named by its time, which ``metrics.json`` and ``report.html`` repeat.
    TensorBoard's files hold times, and of an agent only the weights have no times or paths.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        skipped = "tensorboard" in path.parts or path.suffix in (".txt", ".html", ".lock")
        if skipped or not path.is_file() or path.name.startswith("."):
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(_without_times(json.loads(content))).encode()
        elif path.name == "index.bin":  # a stopped collection writes one SYNC record more
            content = read_index(path).records.tobytes()
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                weights = [name for name in archive.namelist() if name.endswith(".pth")]
                content = b"".join(archive.read(name) for name in sorted(weights))
        name = re.sub(r"\w+_\d{8}_\d{6}\w*", "RUN", str(path.relative_to(folder)))
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def _without_times(content: object) -> object:
    if isinstance(content, dict):
        return {
            key: _without_times(value)
            for key, value in content.items()
            if key not in ("seconds", "name", "agent", "video", "model", "sha256")
        }
    return [_without_times(each) for each in content] if isinstance(content, list) else content


def run_of(folder: Path) -> Path:
    """The only run directory in a folder."""
    (config,) = (folder / "results").glob("*/config.yaml")
    return config.parent


def problems_of(output: str, folder: Path) -> list[str]:
    """Tracebacks in what a process printed, and temporary files that it left."""
    found = ["traceback"] if "Traceback" in output else []
    hidden = [path for path in folder.rglob(".*") if path.is_file() and path.suffix != ".lock"]
    return found + [str(path) for path in hidden]


# Killed processes


@contextmanager
def prepared() -> Iterator[Path]:
    """A folder with a trained run, on whose data and model the other commands work."""
    with tempfile.TemporaryDirectory() as folder:
        status, output = execute(TRAIN, Path(folder))
        if status:
            raise SystemExit(f"the undisturbed training failed:\n{output}")
        yield Path(folder)


def resumed_training(folder: Path) -> tuple[str, ...]:
    """The command that resumes a training, or starts it if nothing was written yet."""
    found = list((folder / "results").glob("*/config.yaml"))
    return ("train", "--resume", str(found[0].parent.relative_to(folder))) if found else TRAIN


def new_folder(task: str, trained: Path) -> Path:
    """A folder in which the command of a task can be executed."""
    folder = Path(tempfile.mkdtemp())
    if task != "train":
        shutil.copytree(trained, folder, dirs_exist_ok=True)
    return folder


def command(task: str, folder: Path) -> tuple[str, ...]:
    """The command that starts a task in a folder, or resumes it."""
    if task == "train":
        return resumed_training(folder)
    run = str(run_of(folder))
    return ("evaluate", run, *EVALUATION) if task == "evaluate" else ("rl", run, *AGENT)


def kill_and_resume(task: str, folder: Path, seconds: float) -> list[str]:
    """Kill a command after some seconds, and resume it; return what is wrong afterwards."""
    pid = start(command(task, folder), folder)
    time.sleep(seconds)
    kill(pid)
    os.waitpid(pid, 0)
    status, output = execute(command(task, folder), folder)
    found = [f"exit status {status}: {output}"] if status else []
    return found + (problems_of(output, folder) if task == "train" else [])


def kills(times: int, seed: int, tasks: list[str]) -> Iterator[str]:
    """Kill training (with its collection), evaluation and the agents' loop at random moments."""
    rng = random.Random(seed)
    with prepared() as trained:
        expected, seconds = {}, {}
        for task in dict.fromkeys(tasks):
            folder = new_folder(task, trained)
            started = time.monotonic()
            status, output = execute(command(task, folder), folder)
            if status:
                raise SystemExit(f"the undisturbed {task} failed:\n{output}")
            seconds[task] = time.monotonic() - started
            expected[task] = fingerprints(folder)
            shutil.rmtree(folder)
        for i in range(times):
            task = tasks[i % len(tasks)]
            folder, moment = new_folder(task, trained), rng.uniform(0, seconds[task])
            wrong = kill_and_resume(task, folder, moment)
            wrong += differences(expected[task], fingerprints(folder))
            state = f"FAILED: {wrong}" if wrong else "same bytes"
            yield f"{i + 1}: {task} killed after {moment:.2f} of {seconds[task]:.2f} s: {state}"
            shutil.rmtree(folder)


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Name the files that are missing, new or different."""
    names = sorted(expected.keys() | found.keys())
    return [name for name in names if expected.get(name) != found.get(name)]


# Full disks


@contextmanager
def small_disk(kilobytes: int) -> Iterator[Path]:
    """Mount a file system of a size that claims to have space, as one that others fill up has."""
    folder = Path(tempfile.mkdtemp())
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={max(4, kilobytes)}k", "tmpfs", folder], check=True
    )
    real = shutil.disk_usage
    shutil.disk_usage = lambda path: Usage(10**12, 0, 10**12)
    try:
        yield folder
    finally:
        shutil.disk_usage = real
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def full_disks(first: int, until: int, step: int) -> Iterator[str]:
    """Train on disks of every size up to a limit, enlarge them, and continue."""
    with prepared() as trained:
        expected = fingerprints(trained)
    for size in range(first, until + 1, step):
        with small_disk(size) as disk:
            status, output = execute(TRAIN, disk)
            lines = [line for line in output.splitlines() if line.startswith("Error")]
            left = problems_of(output, disk)
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
            again, text = execute(resumed_training(disk), disk)
            differing = differences(expected, fingerprints(disk))
            bad = (status, len(lines)) not in ((1, 1), (0, 0)) or left or again or differing
            state = f"FAILED: {status, left, again, differing}\n{output}\n{text}" if bad else "ok"
            yield f"{size} kB: {state}: {(lines or ['finished'])[0][:150]}"


# Many processes, and a long time


def processes(count: int) -> Iterator[str]:
    """Train in many processes with one data directory, then evaluate one run in all of them."""
    with prepared() as trained:
        expected = fingerprints(trained / "results")
        run = run_of(trained)
        with tempfile.TemporaryDirectory() as name:
            Path(name, "data").mkdir()
            folders = [Path(name, str(i)) for i in range(count)]
            for folder in folders:
                folder.mkdir()
                (folder / "data").symlink_to(Path(name, "data"))
            pids = [start(TRAIN, folder) for folder in folders]
            for pid, folder in zip(pids, folders):
                status, output = wait(pid), (folder / "output.txt").read_text()
                differing = differences(expected, fingerprints(folder / "results"))
                bad = status or differing or problems_of(output, folder)
                yield f"train {folder.name}: {f'FAILED: {differing} {output}' if bad else 'same'}"
        yield from _same_run(count, trained, ("train", "--resume", str(run)), expected)
        words = ("evaluate", str(run), *EVALUATION)
        execute(words, trained)
        expected = fingerprints(trained / "results")  # with the reference model
        yield from _same_run(count, trained, words, expected)
        path = trained / "buffer"
        words = ("collect", str(path), "--size", "20", "--steps", "10")
        yield from _same_run(count, trained, words, expected)
        damage = check_path(path)
        yield f"buffer: {f'FAILED: {damage}' if damage else 'intact'}"


def _same_run(
    count: int, trained: Path, words: tuple[str, ...], expected: dict[str, str]
) -> Iterator[str]:
    """Let many processes work on one run or buffer: each one succeeds or reports one error."""
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(i)) for i in range(count)]
        for folder in folders:
            folder.mkdir()
        pids = [start(words, folder) for folder in folders]
        for pid, folder in zip(pids, folders):
            status, output = wait(pid), (folder / "output.txt").read_text()
            refused = status == 1 and output.count("Error: ") == 1
            bad = not (status == 0 or refused) or problems_of(output, trained)
            state = f"FAILED: {output}" if bad else "refused" if refused else "done"
            yield f"{words[0]} {folder.name}: {state}"
    differing = differences(expected, fingerprints(trained / "results"))
    yield f"{words[0]}: {f'FAILED: {differing}' if differing else 'same bytes afterwards'}"


def soak(minutes: float) -> Iterator[str]:
    """Train, train an agent in rounds, and evaluate in one process, again and again."""
    end, process, first = time.monotonic() + 60 * minutes, psutil.Process(), None
    number, tempfile.tempdir = 0, tempfile.mkdtemp()  # other processes use the default one
    while number < 4 or time.monotonic() < end:
        number += 1
        with tempfile.TemporaryDirectory() as name:
            _work(Path(name))
        found = {
            "MB": round(process.memory_info().rss / 1e6),
            "files": process.num_fds(),
            "threads": process.num_threads(),
            "temporary": len(os.listdir(tempfile.tempdir)),
        }
        if number == 3:  # caches and pools have been filled
            first = found
        grown = first and [
            key for key in found if found[key] > first[key] * (1.1 if key == "MB" else 1)
        ]
        yield f"cycle {number}: {found}" + (f" FAILED: grown {grown}" if grown else "")


def _work(folder: Path) -> None:
    config = worldmodel.config.build_config(
        {"output_dir": folder / "results", "data": {"dir": folder / "data"}},
        worldmodel.settings.parse_settings([*SETTINGS]),
        preset="smoke",
    )
    run = worldmodel.train(config=config, progress=False)
    settings = {"eval_points": 1, "eval_episodes": 2, "max_eval_steps": 20, "dream_steps": 10}
    loop = {"rounds": 1, "episodes": 4, "max_steps": 20, "updates": 10}
    run.train_agent(steps=256, num_envs=4, loop=loop, **settings)
    run.evaluate()
    run.plan(episodes=1, steps=5, samples=16, iterations=1)


def main() -> None:
    """Run one kind of trial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    killing = kinds.add_parser("kills")
    killing.add_argument("--times", type=int, default=50)
    killing.add_argument("--seed", type=int, default=0)
    killing.add_argument("--tasks", nargs="+", default=["train", "train", "agent", "evaluate"])
    filling = kinds.add_parser("full-disk")
    filling.add_argument("--first", type=int, default=0, help="kB")
    filling.add_argument("--until", type=int, default=12_000, help="kB")
    filling.add_argument("--step", type=int, default=100, help="kB")
    kinds.add_parser("processes").add_argument("--count", type=int, default=10)
    kinds.add_parser("soak").add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = {
        "kills": lambda: kills(options.times, options.seed, options.tasks),
        "full-disk": lambda: full_disks(options.first, options.until, options.step),
        "processes": lambda: processes(options.count),
        "soak": lambda: soak(options.minutes),
    }[options.kind]()
    failed = 0
    for line in trials:
        print(line, flush=True)
        failed += "FAILED" in line
    print(f"{failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
