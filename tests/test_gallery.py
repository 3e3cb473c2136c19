"""`benchmarks/gallery`: animations of several worlds, and `benchmarks/env_animations`."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import env_animations
from benchmarks.gallery import GAP, SIDE, main


def test_every_world_is_a_cell_with_its_truth_above_its_forecast(driven_run, tmp_path):
    path = tmp_path / "worlds.gif"
    main([str(driven_run)] * 3 + ["--output", str(path), "--steps", "4", "--columns", "2"])
    with Image.open(path) as image:
        assert image.n_frames == 5
        frame = np.asarray(image.convert("RGB"))
    height, width = frame.shape[0] // 2, SIDE + GAP
    assert frame.shape[1] == 2 * width
    cells = [frame[:height, :width], frame[:height, width:], frame[height:, :width]]
    assert all((cell == cells[0]).all() for cell in cells)
    assert (frame[height:, width:] == 255).all()
    left = GAP // 2
    truth = cells[0][-GAP - 2 - 2 * SIDE : -GAP - 2 - SIDE, left : left + SIDE]
    forecast = cells[0][-GAP - SIDE : -GAP, left : left + SIDE]
    assert (truth != forecast).any()
    assert truth.min() < 128


def test_a_page_shows_an_animation_of_each_run(driven_run, tmp_path):
    page = tmp_path / "gallery.md"
    page.write_text("# Worlds\n\n<!-- worlds -->\nold\n<!-- /worlds -->\n\nThe end.\n")
    arguments = [str(driven_run), "--output", str(tmp_path / "all.gif"), "--steps", "4"]
    main([*arguments, "--page", str(page)])
    first = page.read_text()
    name = "DoublePendulumPixels"
    assert f"![{name} beside its forecast](gallery/{name}.gif)" in first
    assert "4 steps of a held-out episode of `DoublePendulumPixels-v0`" in first
    assert "old" not in first
    assert first.endswith("The end.\n")
    with Image.open(tmp_path / "gallery" / f"{name}.gif") as image:
        assert image.n_frames == 5
        frame = np.asarray(image.convert("RGB"))
    left, right = frame[60:300, 20:270], frame[60:300, 292:542]
    assert (left != right).any()
    main([*arguments, "--page", str(page)])
    assert page.read_text() == first


def test_a_page_without_a_place_for_worlds_is_refused(driven_run, tmp_path):
    page = tmp_path / "gallery.md"
    page.write_text("# Worlds\n")
    arguments = [str(driven_run), "--output", str(tmp_path / "all.gif"), "--steps", "4"]
    with pytest.raises(ValueError, match="has no lines <!-- worlds -->"):
        main([*arguments, "--page", str(page)])


def test_animations_of_the_environments_move_and_are_small(tmp_path):
    env_animations.main(["--folder", str(tmp_path), "--steps", "6"])
    sizes = {"double_pendulum.gif": 1, "double_pendulum_pixels.gif": 3}
    for file, panels in sizes.items():
        with Image.open(tmp_path / file) as image:
            assert image.n_frames == 6
            first = np.asarray(image.convert("RGB"))
            image.seek(5)
            last = np.asarray(image.convert("RGB"))
        assert first.shape[1] > 250 * panels
        assert (first[50:300] != last[50:300]).any()


def test_a_run_that_is_missing_is_a_line_and_nothing_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "missing"), "--output", str(tmp_path / "worlds.gif")])
    assert "missing is not a run directory" in capsys.readouterr().err
    assert not (tmp_path / "worlds.gif").exists()
