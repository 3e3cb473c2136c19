"""Rasterizer against geometry: subpixel accuracy at any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from worldmodel.envs.raster import BOB1, BOB2, Scene, _capsule

angle = st.floats(-np.pi, np.pi)
LENGTHS = (1.0, 1.0)


def state(theta1, theta2):
    return np.array([[theta1, theta2, 0.0, 0.0]])


def white_capsule(ax, ay, bx, by, radius, size=32):
    frame = np.zeros((size, size, 1), np.uint8)
    _capsule(frame, 0, ax, ay, bx, by, radius, np.array([255.0]))
    return frame[:, :, 0] / 255.0


def centroid(ink):
    rows, columns = np.indices(ink.shape) + 0.5
    return (columns * ink).sum() / ink.sum(), (rows * ink).sum() / ink.sum()


def coverage(ax, ay, bx, by, radius, size=32, samples=16):
    """Fraction of each pixel that the capsule covers, by counting a grid of points."""
    points = (np.arange(size * samples) + 0.5) / samples
    x, y = np.meshgrid(points, points)
    dx, dy = bx - ax, by - ay
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-12), 0.0, 1.0)
    inside = (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2 < radius**2
    return inside.reshape(size, samples, size, samples).mean(axis=(1, 3))


@settings(max_examples=30, deadline=None)
@given(x=st.floats(10.0, 22.0), y=st.floats(10.0, 22.0), turn=angle, radius=st.floats(1.5, 4.0))
def test_intensity_is_the_coverage_of_each_pixel(x, y, turn, radius):
    dx, dy = 7.0 * np.cos(turn), 7.0 * np.sin(turn)
    for capsule in ((x, y, x, y, radius), (x - dx, y - dy, x + dx, y + dy, radius)):
        exact = coverage(*capsule)
        error = white_capsule(*capsule) - exact
        assert np.abs(error).max() < 0.1
        assert abs(error.sum()) < 0.1 * exact.sum()


@given(x=st.floats(10.0, 22.0), y=st.floats(10.0, 22.0), radius=st.floats(3.0, 8.0))
def test_bob_position_can_be_recovered_to_a_few_hundredths_of_a_pixel(x, y, radius):
    ink = white_capsule(x, y, x, y, radius)
    assert_allclose(centroid(ink), (x, y), atol=0.05)
    assert_allclose(ink.sum(), np.pi * radius**2, rtol=0.03)


def test_shapes_outside_the_frame_are_clipped():
    assert white_capsule(-40.0, -40.0, -40.0, -40.0, 5.0).sum() == 0.0
    inside = white_capsule(16.0, 16.0, 60.0, 16.0, 2.0)
    assert_allclose(inside[:, 20:].sum(axis=0), 4.0, atol=0.05)


@settings(max_examples=25, deadline=None)
@given(theta1=angle, theta2=angle)
def test_small_frames_equal_averaged_large_frames(theta1, theta2):
    small = Scene(LENGTHS, 64).draw(state(theta1, theta2))[0].astype(float)
    large = Scene(LENGTHS, 512).draw(state(theta1, theta2))[0].astype(float)
    averaged = large.reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
    assert np.abs(small - averaged).max() < 64.0
    assert np.abs(small - averaged).mean() < 0.15
    blank = small[0, 0]
    ink_small = np.abs(small - blank).sum(axis=2)
    ink_averaged = np.abs(averaged - blank).sum(axis=2)
    assert_allclose(centroid(ink_small), centroid(ink_averaged), atol=0.1)


@given(theta1=angle, theta2=angle)
def test_mirrored_states_give_mirrored_frames(theta1, theta2):
    scene = Scene(LENGTHS, 48)
    frame = scene.draw(state(theta1, theta2))[0].astype(int)
    mirrored = scene.draw(state(-theta1, -theta2))[0].astype(int)
    assert np.abs(mirrored[:, ::-1] - frame).max() <= 1
    upside_down = scene.draw(state(np.pi - theta1, np.pi - theta2))[0].astype(int)
    assert np.abs(upside_down[::-1] - frame).max() <= 1


@given(theta1=angle, theta2=angle)
def test_subpixel_motion_changes_the_frame_slightly(theta1, theta2):
    scene = Scene(LENGTHS, 64)
    before = scene.draw(state(theta1, theta2))[0].astype(int)
    after = scene.draw(state(theta1 + 0.005, theta2))[0].astype(int)
    assert 0 < np.abs(after - before).max() <= 60


@given(
    lengths=st.tuples(*[st.floats(0.05, 20.0)] * 2),
    theta=angle,
    size=st.sampled_from([64, 101, (60, 90), (90, 60)]),
)
def test_fully_extended_pendulum_fits_the_frame(lengths, theta, size):
    frame = Scene(lengths, size).draw(state(theta, theta))[0]
    border = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
    assert (border == border[0]).all()
    assert (frame != border[0]).any()


@pytest.mark.parametrize("grayscale", [False, True])
def test_both_bobs_are_visible_and_distinct_in_small_frames(grayscale):
    scene = Scene(LENGTHS, 64, grayscale)
    frame = scene.draw(state(0.7, -1.9))[0].astype(int)
    colors = np.array([BOB1, BOB2])
    if grayscale:
        colors = np.round(colors @ [[0.299], [0.587], [0.114]])
    for color in colors:
        assert (np.abs(frame - color).max(axis=2) <= 2).sum() >= 25
    assert np.abs(colors[0] - colors[1]).max() >= 40


def test_stacks_are_concatenated_frames_oldest_first():
    histories = np.random.default_rng(0).uniform(-np.pi, np.pi, (5, 3, 4))
    scene = Scene((1.0, 0.6), 40)
    stacks = scene.draw_stacks(histories)
    assert stacks.shape == (5, 40, 40, 9)
    for s in range(3):
        assert_array_equal(stacks[..., 3 * s : 3 * s + 3], scene.draw(histories[:, s]))


def test_first_bob_is_below_the_pivot_at_zero_angle():
    frame = Scene((2.0, 1.0), 64).draw(state(0.0, 0.0))[0].astype(int)
    rows, columns = np.nonzero(np.abs(frame - BOB1).max(axis=2) <= 2)
    assert_allclose(columns.mean() + 0.5, 32.0, atol=0.01)
    assert rows.mean() > 40.0
