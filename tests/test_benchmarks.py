"""`python -m benchmarks`: every part runs, and the table has what the figures need."""

import json
import math
import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.__main__ import PARTS, main
from benchmarks.speed import updates
from benchmarks.speed.table import Context, duration, rate


def suite(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
    main()


def test_every_part_runs_and_the_table_holds_it(driven_run, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(updates, "train_smoke", lambda *folders: trained.append(folders))
    output = tmp_path / "speed"
    suite(monkeypatch, *PARTS, "--smoke", "--run", driven_run, "--output", output)
    content = json.loads(output.with_suffix(".json").read_text())
    rows = content["rows"]
    assert {row["part"] for row in rows} == set(PARTS)
    assert len(trained) == 1
    for row in rows:
        assert math.isfinite(row["figure"])
        assert row["figure"] > 0, row
        assert row["unit"]
        assert (row["ratio"] is None) or row["peer"]
    assert any(line.startswith("command: python") for line in content["machine"])
    assert "seconds: wall clock" in content["machine"]
    table = output.with_suffix(".md").read_text()
    assert table.count("\n| ") == len(rows) + 2
    assert "numpy" in table
    assert "its convolutions and matrix products alone" in capsys.readouterr().out


def test_mistakes_on_the_command_line_are_named(monkeypatch, capsys):
    for arguments, message in {
        ("sampling", "speed"): "unknown part 'speed'; expected env, collection, sampling",
        ("sampling", "--repeats", "0"): "--repeats is 0; expected 1 or more",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            suite(monkeypatch, *arguments)
        assert message in capsys.readouterr().err


def test_functions_take_turns_and_ratios_are_medians_of_quotients(tmp_path):
    ticks, calls = count(), []
    context = Context(tmp_path, 3, clock=lambda: float(next(ticks)))
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = context.measure(functions)
    assert calls == ["a", "b"] * 4  # the first of each is a warm-up
    assert times == {"a": [1.0] * 3, "b": [1.0] * 3}
    row = duration("part", "work", [0.1, 0.2, 0.9], "peer", [0.05, 0.05, 0.1], count=2)
    assert (row.figure, row.peer_figure, row.repeats) == (100.0, 25.0, 3)
    assert row.ratio == pytest.approx(4.0)  # of 2, 4 and 9
    row = rate("part", "work", [0.5], 10, "steps/s", "peer", [1.0], 5)
    assert (row.figure, row.peer_figure, row.ratio) == (20.0, 5.0, 4.0)


def test_the_limit_of_an_update_is_its_products_forward_and_backward():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
    x = torch.randn(5, 2, 4, 4)
    phase = SimpleNamespace(loss=lambda update: (net(x).square().mean(), {}))
    with updates.Recorder() as recorder:
        phase.loss(0)[0].backward()
    names = [function.overloadpacket.__name__ for function, *_ in recorder.calls]
    assert sorted(names) == ["addmm", "convolution", "convolution_backward", "mm", "mm"]
    updates.bare_products(phase)()


def test_the_products_of_the_optimizer_count_only_where_they_are_asked_for():
    ran = []
    phase = SimpleNamespace(
        loss=lambda update: (torch.ones((), requires_grad=True) * 2, {}),
        update=lambda: ran.append(torch.ones(2, 2) @ torch.ones(2, 2)),
    )
    updates.bare_products(phase)
    assert not ran
    updates.bare_products(phase, optimizer=True)
    assert len(ran) == 1
