"""Encoders beside the keypoints: what they see, and the backbones of timm where it is installed."""

import pytest
import torch
from torch.nn import functional as F

from worldmodel.errors import MissingLibraryError
from worldmodel.models.encoders import Blur, ConvEncoder, KeypointEncoder, MotionStem, TimmEncoder


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


@pytest.mark.parametrize("sigma", [0.0, 0.7, 2.0])
def test_the_folded_blur_equals_smoothing_the_image_first(sigma):
    kernel, image = torch.randn(5, 3, 4, 4), torch.rand(2, 3, 16, 16)
    blur = Blur(sigma)
    near = 2 * blur.radius
    padded = F.pad(image, (near,) * 4).flatten(0, 1).unsqueeze(1)
    smooth = F.conv2d(padded, blur.gaussian[None, None]).unflatten(0, (2, 3)).squeeze(2)
    inside = slice(blur.radius, blur.radius + 16)
    expected = F.conv2d(smooth[..., inside, inside], kernel, stride=4)
    actual = F.conv2d(image, blur(kernel), stride=4, padding=blur.radius)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_blur_is_a_gaussian_of_the_given_deviation():
    gaussian = Blur(2.0).gaussian
    offsets = torch.arange(len(gaussian)) - len(gaussian) // 2
    assert gaussian.sum() == pytest.approx(1)
    assert (gaussian.sum(0) * offsets.square()).sum().sqrt() == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("kind", [ConvEncoder, KeypointEncoder])
def test_with_blur_latents_change_evenly_as_a_thin_line_moves(kind):
    """The largest change per pixel is then at most a few times the smallest one."""

    def ratio(blur):
        torch.manual_seed(0)
        encoder = kind((32, 32, 1), 1, 8, width=8, blur=blur)
        frames = torch.zeros(9, 32, 32, 1, dtype=torch.uint8)
        for place in range(9):
            frames[place, :, 12 + place] = 255
        steps = encoder(frames).diff(dim=0).norm(dim=1)
        return (steps.max() / steps.min()).item()

    assert ratio(2.0) < ratio(0.0)
    assert ratio(2.0) < 3


@pytest.mark.parametrize("kind", [ConvEncoder, KeypointEncoder])
@pytest.mark.parametrize("blur", [-1.0, 1000.0, float("nan")])
def test_a_blur_out_of_range_is_refused(kind, blur):
    with pytest.raises(ValueError, match=rf"blur is {blur}; expected up to 16 pixels, or 0"):
        kind((32, 32, 1), 1, 8, blur=blur)


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
