"""Keypoints are where the maps are bright, and their products are linearly decodable."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from worldmodel.data.frames import FrameStack
from worldmodel.models.encoders import KeypointEncoder, encode_windows

SIDE = 32


def seeing_brightness(stack=2, width=2):
    """An encoder whose maps are the brightness of each patch."""
    torch.manual_seed(0)
    encoder = KeypointEncoder((SIDE, SIDE, 1), stack, 8, width)
    stem, _, mix, _, last = encoder.maps
    with torch.no_grad():
        for layer in (stem, mix, last):
            layer.weight.zero_()
            layer.bias.zero_()
        stem.weight.fill_(1 / 16)
        mix.weight[:, 0, 1, 1] = 1.0
        last.weight[:, 0] = 1.0
    return encoder


def dot(x, y):
    """A frame (32, 32) with one bright patch, x to the right and y down."""
    frame = np.zeros((SIDE, SIDE), np.uint8)
    frame[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 255
    return frame


def single(frame):
    return torch.as_tensor(frame[None, ..., None])


def observation(*frames):
    return torch.as_tensor(np.stack(frames, -1)[None])


@pytest.mark.parametrize(("x", "y"), [(0, 0), (7, 0), (0, 7), (3, 5)])
def test_a_keypoint_lies_where_its_map_is_bright(x, y):
    positions, strength = seeing_brightness().keypoints(single(dot(x, y)))
    expected = torch.tensor([x, y]) * 2 / 7 - 1
    torch.testing.assert_close(positions[0, 0], expected, atol=1e-3, rtol=0)
    assert strength.shape == (1, 2)


def test_a_brighter_map_is_stronger():
    encoder = seeing_brightness()
    _, dark = encoder.keypoints(single(dot(3, 3) // 4))
    _, bright = encoder.keypoints(single(dot(3, 3)))
    assert (bright > dark).all()


def test_the_strength_is_the_log_sum_exp_of_the_map():
    _, strength = seeing_brightness().keypoints(single(dot(2, 5)))
    one_of_64 = np.log(63 + np.e)
    torch.testing.assert_close(strength, torch.full((1, 2), float(one_of_64)))


@pytest.mark.parametrize("stack", [1, 2, 3])
def test_windows_are_encoded_as_their_observations(stack):
    torch.manual_seed(0)
    encoder = KeypointEncoder((16, 16, 3), stack, 8, 4)
    frames = torch.randint(256, (5, 9, 16, 16, 3), dtype=torch.uint8)
    times = [2, 3, 4, 8]
    latents = encode_windows(encoder, FrameStack(stack), frames, times)
    each = [encoder(FrameStack(stack).observe(frames, time)) for time in times]
    torch.testing.assert_close(latents, torch.stack(each))


def test_a_frame_of_two_observations_is_seen_once(monkeypatch):
    encoder = KeypointEncoder((16, 16, 3), 2, 8, 4)
    frames = torch.zeros((5, 9, 16, 16, 3), dtype=torch.uint8)
    seen = []
    keypoints = encoder.keypoints
    monkeypatch.setattr(encoder, "keypoints", lambda frame: seen.append(1) or keypoints(frame))
    encode_windows(encoder, FrameStack(2), frames, [1, 2, 3, 5])  # of frames 0 to 5
    assert len(seen) == 6


def test_a_window_without_enough_frames_is_refused():
    encoder = KeypointEncoder((16, 16, 3), 2, 8, 4)
    frames = torch.zeros((5, 9, 16, 16, 3), dtype=torch.uint8)
    with pytest.raises(IndexError, match="no observation of 2 frames ends at index 0"):
        encode_windows(encoder, FrameStack(2), frames, [3, 0])


def test_angular_velocity_is_linear_in_the_features():
    """A bob on a circle: x vy - y vx, a product of position and motion, is its rate."""
    rng = np.random.default_rng(0)
    angle, rate = rng.uniform(-np.pi, np.pi, 4000), rng.uniform(-0.3, 0.3, 4000)

    def at(a):
        return np.stack([np.sin(a), np.cos(a)], -1)

    motion = 10.0 * (at(angle) - at(angle - rate))
    features = torch.as_tensor(np.concatenate([2 * at(angle), motion], -1), dtype=torch.float32)
    encoder = KeypointEncoder((SIDE, SIDE, 1), 2, 64, width=1)
    left = torch.nn.functional.linear(features, encoder.left.weight[:, :4], encoder.left.bias)
    right = torch.nn.functional.linear(features, encoder.right.weight[:, :4], encoder.right.bias)
    inputs = torch.cat([features, left * right], -1).detach().numpy()
    fitted = LinearRegression().fit(inputs[:3000], rate[:3000])
    assert fitted.score(inputs[3000:], rate[3000:]) > 0.999
    assert LinearRegression().fit(features, rate).score(features, rate) < 0.2


def test_what_stands_still_has_no_motion():
    encoder = KeypointEncoder((SIDE, SIDE, 1), 2, 8, width=4)
    still = observation(dot(2, 2), dot(2, 2))
    with torch.no_grad():
        before = encoder(still)
        motion = slice(2 * 4, 4 * 4)
        for layer in (encoder.left, encoder.right, encoder.output):
            layer.weight[:, motion] += 1.0
        torch.testing.assert_close(encoder(still), before)
        moved = observation(dot(2, 2), dot(5, 2))
        assert not torch.allclose(encoder(moved), before)
