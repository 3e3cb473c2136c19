"""`benchmarks/gallery`: one animation of several worlds."""

import numpy as np
from PIL import Image

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
