"""What a terminal shows while a task runs."""

import io
import re
import shutil
import subprocess
import sys
import threading

import pytest
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from worldmodel.callbacks import CallbackList
from worldmodel.terminal import TerminalProgress, report_thread_error


@pytest.mark.parametrize("live", [True, False])
def test_progress_has_the_time_left_from_the_first_step_on(live):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=live, width=120)
    with CallbackList([TerminalProgress(console)]).task("collect", 1000) as advance:
        advance(1)
    left = r"left \d+:\d\d" if live else r"\d+:\d\d left"
    assert re.search(rf"collect.*1/1000.*{left}", re.sub(r"\x1b\[[\d;?]*\w", "", stream.getvalue()))


@pytest.mark.parametrize("live", [True, False])
def test_progress_without_a_known_total_counts_and_promises_no_time(live):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=live, width=120)
    with CallbackList([TerminalProgress(console)]).task("own data", None) as advance:
        for done in range(1, 200):
            advance(done)
    text = re.sub(r"\x1b\[[\d;?]*\w", "", stream.getvalue())
    shown = text.replace("\r", "\n").strip().splitlines()
    if live:
        assert re.search(r"^own data +\S* +199/\? +[\d,.]+/s 0:00:\d\d *$", shown[-1])
    else:
        assert [line.split(",")[0] for line in shown[:3]] == [f"own data: {n}" for n in (1, 2, 3)]
        assert re.fullmatch(r"own data: 1\d\d, [\d.]+/s", shown[-1])
        assert len(shown) < 50
    assert "left" not in text


def test_lines_are_written_for_the_first_step_and_every_tenth():
    stream = io.StringIO()
    with CallbackList([TerminalProgress(Console(file=stream))]).task("collect", 40, 2) as advance:
        for done in range(3, 41):
            advance(done)
    counts = [int(line.split()[1].split("/")[0]) for line in stream.getvalue().splitlines()]
    assert counts == [3, *range(4, 41, 4)]


def test_a_lost_disk_is_an_error_of_the_writer_and_no_traceback_of_its_thread(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(threading, "excepthook", report_thread_error)
    writer = SummaryWriter(str(tmp_path / "events"))
    writer.add_scalar("loss", 1.0, 0)
    writer.flush()
    shutil.rmtree(tmp_path / "events")
    writer.add_scalar("loss", 1.0, 1)
    with pytest.raises(FileNotFoundError):
        writer.close()
    assert "Traceback" not in capsys.readouterr().err
    thread = threading.Thread(target=lambda: [][0])
    thread.start()
    thread.join()
    assert "IndexError" in capsys.readouterr().err


def test_the_remaining_time_of_a_resumed_task_is_unknown_before_its_first_step():
    console = Console(file=io.StringIO(), width=200)
    progress = TerminalProgress(console)
    progress.on_task_start("trials", 12, 2)
    progress.on_task_update("trials", 2, "")
    assert "trials: 2/12, 0.0/s, -:-- left" in console.file.getvalue()


def test_ctrl_c_is_reported_without_importing_torch():
    code = (
        "import sys; from worldmodel.terminal import user_errors\n"
        "try:\n    with user_errors(): raise KeyboardInterrupt\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Error: stopped" in done.stderr
    assert "AssertionError" not in done.stderr
