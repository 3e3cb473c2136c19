"""Encoders beside the keypoints: what they see, and the backbones of timm where it is installed."""

import pytest
import torch

from worldmodel.errors import MissingLibraryError
from worldmodel.models.encoders import ConvEncoder, KeypointEncoder, MotionStem, TimmEncoder


@pytest.mark.parametrize("stack", [1, 2, 3])
def test_the_folded_stem_equals_appearance_plus_motion(stack):
    stem = MotionStem(channels=3, frame_stack=stack, out_channels=5)
    frames = torch.rand(2, stack, 3, 16, 16)
    expected = stem.appearance(frames[:, -1])
    if stack > 1:
        differences = frames[:, 1:] - frames[:, :-1]
        expected = expected + stem.gain * stem.motion(differences.flatten(1, 2))
    torch.testing.assert_close(stem(255 * frames.flatten(1, 2)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [ConvEncoder, KeypointEncoder])
def test_the_encoder_sees_the_order_of_the_frames(kind):
    encoder = kind((32, 32, 1), 2, 8, width=4)
    obs = torch.randint(0, 256, (4, 32, 32, 2), dtype=torch.uint8)
    assert not torch.allclose(encoder(obs), encoder(obs.flip(-1)))


def make_timm(**kwargs):
    pytest.importorskip("timm")
    return TimmEncoder((32, 32, 3), 2, 8, **kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [{"name": "test_resnet"}, {"name": "test_vit", "img_size": 32}],
    ids=lambda kwargs: kwargs["name"],
)
def test_a_backbone_of_timm_encodes_all_frames_of_the_stack(kwargs):
    torch.manual_seed(0)
    encoder = make_timm(**kwargs).eval()
    observation = torch.randint(0, 256, (3, 32, 32, 6), dtype=torch.uint8)
    z = encoder(observation)
    assert z.shape == (3, 8)
    for channel in (0, 5):
        changed = observation.clone()
        changed[..., channel] = 255 - changed[..., channel]
        assert not torch.allclose(encoder(changed), z, atol=1e-4)


def test_a_name_that_timm_would_download_is_refused():
    with pytest.raises(ValueError, match=r"'hf-hub:some/model'; expected one of timm.list_models"):
        make_timm(name="hf-hub:some/model")


def test_a_missing_timm_is_reported_with_its_installation(monkeypatch):
    monkeypatch.setattr("worldmodel.extras.is_installed", lambda name: False)
    with pytest.raises(MissingLibraryError, match="timm is not installed; install it with"):
        TimmEncoder((32, 32, 3), 2, 8)
