"""Shapes, ranges and conventions of the public interface of the model."""

import re

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldmodel.errors import ConfigError
from worldmodel.models import ModelSpec, WorldModel, check_parts, describe_actions
from worldmodel.models.encoders import ConvEncoder, KeypointEncoder
from worldmodel.models.heads import PatchDecoder, to_patches
from worldmodel.models.world_model import _CPU_BATCH, as_device_tensor
from worldmodel.registry import reference


def make(frame_shape=(64, 64, 3), frame_stack=2, space=None, **sizes):
    space = space or spaces.Box(-1, 1, (2,))
    torch.manual_seed(0)
    return WorldModel(
        ModelSpec(
            frame_shape=frame_shape,
            frame_stack=frame_stack,
            actions=describe_actions(space),
            latent_dim=sizes.get("latent_dim", 8),
            width=4,
            hidden=16,
            predictor=sizes.get("predictor", "residual"),
            encoder=sizes.get("encoder", "keypoints" if len(frame_shape) == 3 else "mlp"),
        )
    )


@pytest.mark.parametrize(
    ("actions", "shown"),
    [
        (spaces.Discrete(3), "Discrete(3)"),
        (spaces.Discrete(4, start=1), "Discrete(4, start=1)"),
        (spaces.Box(-1, 1, (3,)), "Box(-1, 1, (3,))"),
        (
            spaces.Box(np.float32([-0.1, -2]), np.float32([0.1, 2])),
            "Box([-0.1, -2], [0.1, 2], (2,))",
        ),
    ],
)
def test_a_model_of_discrete_actions_fits_the_same_ones_only(actions, shown):
    spec, seen = make(space=spaces.Discrete(3, start=1)).spec, spaces.Box(0, 255, (64, 64, 6))
    spec.require_fit("Env-v0", spaces.Discrete(3, start=1), seen)
    message = f"has actions {shown} and observations of shape (64, 64, 6), but the model was "
    message += "trained on actions Discrete(3, start=1) and observations of shape (64, 64, 6);"
    with pytest.raises(ValueError, match=re.escape(message)):
        spec.require_fit("Env-v0", actions, seen)


def test_a_model_of_box_actions_fits_other_bounds_but_no_other_size():
    spec, seen = make(space=spaces.Box(-1, 1, (2,))).spec, spaces.Box(0, 255, (64, 64, 6))
    spec.require_fit("Env-v0", spaces.Box(-3, 1, (2,)), seen)
    for actions, observed in (
        (spaces.Box(-1, 1, (3,)), seen),
        (spaces.Discrete(2), seen),
        (spaces.Box(-1, 1, (2,)), spaces.Box(0, 255, (64, 64, 3))),
    ):
        with pytest.raises(ValueError, match="use the environment that its data comes from"):
            spec.require_fit("Env-v0", actions, observed)


def observations(model, batch=3):
    shape = (batch, *model.spec.observation_shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("side", [16, 32, 48, 64, 96, 128])
@pytest.mark.parametrize(("channels", "stack"), [(3, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("encoder", ["keypoints", "conv"])
def test_encode_and_decode_work_at_every_size(side, channels, stack, encoder):
    model = make((side, side, channels), stack, encoder=encoder)
    obs = observations(model)
    z = model.encode(obs)
    assert z.shape == (3, 8)
    assert z.dtype == torch.float32
    assert not z.requires_grad
    image = model.decode(z)
    assert image.shape == obs.shape
    assert image.dtype == torch.uint8


def test_encode_takes_arrays_and_tensors_alike():
    model = make()
    obs = observations(model)
    assert torch.equal(model.encode(obs), model.encode(torch.from_numpy(obs)))


@pytest.mark.parametrize("batch", [0, 1, 2 * _CPU_BATCH + 3])
def test_a_batch_of_any_size_is_encoded_as_its_parts_are(batch):
    model = make((16, 16, 3))
    obs = observations(model, batch)
    z = model.encode(obs)
    assert z.shape == (batch, 8)
    if batch:
        torch.testing.assert_close(z[-1:], model.encode(obs[-1:]))


def test_encode_rejects_a_wrong_shape():
    with pytest.raises(ValueError, match=r"\(3, 64, 64, 3\), expected \(B, 64, 64, 6\)"):
        make().encode(observations(make())[..., :3])


def test_an_untrained_rollout_stays_where_it_started():
    model = make()
    z = model.encode(observations(model))
    zs = model.rollout(z, torch.zeros(5, 3, 2))
    assert zs.shape == (5, 3, 8)
    assert torch.equal(zs, z.expand(5, -1, -1))


def test_rollout_is_repeated_prediction():
    model = make()
    torch.nn.init.normal_(model.predictor.net[-1].weight)
    z = model.encode(observations(model))
    actions = torch.rand(4, 3, 2) * 2 - 1
    zs = model.rollout(z, actions)
    for step, action in zip(zs, actions, strict=True):
        z = model.predict(z, action)
        torch.testing.assert_close(step, z)


@pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        (spaces.Box(-1, 1, (2,)), torch.zeros(5, 2), r"\(5, 2\), expected \(T, B, 2\) for B = 3"),
        (spaces.Box(-1, 1, (2,)), torch.zeros(5, 3, 4), r"\(5, 3, 4\), expected \(T, B, 2\)"),
        (spaces.Box(-1, 1, (1,)), torch.zeros(5, 1, 1), r"\(5, 1, 1\), expected \(T, B, 1\)"),
        (spaces.Discrete(2), torch.zeros(5, 3, 2), r"\(5, 3, 2\), expected \(T, B\) for B = 3"),
        (spaces.Discrete(2), torch.zeros(5, 1), r"\(5, 1\), expected \(T, B\) for B = 3"),
    ],
)
def test_rollout_rejects_actions_of_a_wrong_shape(space, actions, expected):
    model = make(space=space)
    with pytest.raises(ValueError, match=expected):
        model.rollout(torch.zeros(3, 8), actions)


def test_predict_and_outcome_reject_wrong_shapes():
    model = make()
    z, actions = torch.zeros(3, 8), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"actions have shape \(2,\), expected \(B, 2\)"):
        model.predict(z, actions[0])
    with pytest.raises(ValueError, match=r"actions have shape \(1, 2\), expected \(B, 2\)"):
        model.outcome(z, actions[:1], z)
    for wrong in (lambda: model.predict(z[0], actions), lambda: model.decode(z[0])):
        with pytest.raises(ValueError, match=r"latents have shape \(8,\), expected \(B, 8\)"):
            wrong()
    with pytest.raises(
        ValueError, match=r"before the action have shape \(3, 8\), and those after it \(2, 8\)"
    ):
        model.outcome(z, actions, z[:2])


def test_latents_may_be_arrays():
    model = make()
    z, actions = np.ones((3, 8)), np.zeros((4, 3, 2))
    assert model.decode(z).shape == (3, 64, 64, 6)
    tensor = torch.ones(3, 8)
    assert torch.equal(model.rollout(z, actions), model.rollout(tensor, torch.zeros(4, 3, 2)))
    assert torch.equal(model.outcome(z, actions[0], z)[0], model.outcome(tensor, actions[0], z)[0])


def test_a_rollout_of_no_actions_is_empty():
    assert make().rollout(torch.zeros(3, 8), torch.zeros(0, 3, 2)).shape == (0, 3, 8)


def test_an_untrained_twin_has_the_sizes_and_the_weights_of_its_seed():
    model = make()
    before = torch.get_rng_state()
    one, same, other = model.untrained(1), model.untrained(1), model.untrained(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.spec == model.spec
    frames = observations(model)
    assert torch.equal(one.encode(frames), same.encode(frames))
    assert not torch.equal(one.encode(frames), other.encode(frames))


def test_the_identity_predictor_predicts_no_change_and_has_no_parameters():
    model = make(predictor="identity")
    z = model.encode(observations(model))
    assert torch.equal(model.predict(z, torch.ones(3, 2)), z)
    assert torch.equal(model.rollout(z, torch.ones(4, 3, 2)), z.expand(4, -1, -1))
    assert not list(model.predictor.parameters())


class Doubler(torch.nn.Module):
    """A user's predictor, that knows nothing of `unroll`."""

    def __init__(self, latent_dim, action_dim, hidden, factor=2.0):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, z, action):
        return self.factor * z


def test_a_users_part_is_named_by_module_and_takes_its_arguments():
    spec = make().spec.model_copy(
        update={"predictor": reference(Doubler), "predictor_kwargs": {"factor": 3.0}}
    )
    model = WorldModel(spec)
    z = torch.ones(2, 8)
    assert torch.equal(model.rollout(z, torch.zeros(2, 2, 2))[-1], 9 * z)


class Identity(torch.nn.Module):
    """A decoder that decodes nothing."""

    def __init__(self, *sizes):
        super().__init__()

    def forward(self, z):
        return z


class Transposed(KeypointEncoder):
    """An encoder whose second method returns (B, T, D)."""

    def encode_windows(self, frames, times):
        return super().encode_windows(frames[:1], times).transpose(0, 1)


class Narrow(Doubler):
    """A predictor of the wrong size."""

    def forward(self, z, action):
        return z[:, :-1]


@pytest.mark.parametrize(
    ("part", "kind", "message"),
    [
        ("encoder", Doubler, r"cannot make the encoder .* by calling Doubler\(.*, 8, 4\): "),
        ("encoder", Transposed, r"encode_windows of encoder .* to shape \(1, 2, 8\), expected"),
        ("decoder", Identity, r"fails on inputs|maps \(2, 8\) to shape \(2, 8\)"),
        ("predictor", Narrow, r"maps \(2, 8\) and \(2, 2\) to shape \(2, 7\), expected \(2, 8\)"),
    ],
)
def test_a_part_that_does_not_fit_is_reported_with_its_shapes(part, kind, message):
    fitting = make().spec
    before = torch.get_rng_state()
    with pytest.raises(ConfigError, match=message):
        check_parts(fitting.model_copy(update={part: reference(kind)}))
    check_parts(fitting)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch.module:Name", "cannot load the predictor"),
        ("math:sqrt", "makes a float|cannot make the predictor"),
        ("worldmodel.models.predictors:NoSuch", "cannot load the predictor"),
        ("transformer", "unknown predictor 'transformer'; expected one of residual, direct"),
    ],
)
def test_a_part_that_cannot_be_made_is_named(name, message):
    with pytest.raises(ConfigError, match=message):
        WorldModel(make().spec.model_copy(update={"predictor": name}))


def test_the_action_steers_the_prediction():
    model = make()
    torch.nn.init.normal_(model.predictor.net[-1].weight)
    z = model.encode(observations(model))
    one, other = model.predict(z, torch.ones(3, 2)), model.predict(z, -torch.ones(3, 2))
    assert not torch.allclose(one, other)


def test_outcome_gives_rewards_and_probabilities():
    model = make()
    z = model.encode(observations(model))
    reward, end = model.outcome(z, torch.zeros(3, 2), z)
    assert reward.shape == end.shape == (3,)
    assert ((end >= 0) & (end <= 1)).all()


def test_box_actions_are_scaled_to_their_bounds():
    model = make(space=spaces.Box(np.float32([-2, 0]), np.float32([2, 10])))
    vector = model.action_vector(np.float32([[-2, 0], [0, 5], [2, 10]]))
    assert vector.tolist() == [[-1, -1], [0, 0], [1, 1]]


def test_discrete_actions_are_one_hot():
    model = make(space=spaces.Discrete(3, start=-1))
    assert model.action_vector(np.array([-1, 1])).tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    "space", [spaces.MultiBinary(3), spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(-1, 1, (2, 2))]
)
def test_unsupported_action_spaces_are_rejected(space):
    with pytest.raises(ValueError, match="is not supported: expected Discrete or a bounded"):
        describe_actions(space)


def test_vector_models_have_no_decoder():
    sizes = {"latent_dim": 8, "width": 4, "hidden": 16}
    actions = describe_actions(spaces.Discrete(2))
    model = WorldModel(ModelSpec(frame_shape=(4,), frame_stack=2, actions=actions, **sizes))
    z = model.encode(np.zeros((5, 8), np.float32))
    assert z.shape == (5, 8)
    with pytest.raises(ValueError, match="no pixels to decode"):
        model.decode(z)


def test_decoded_values_are_clamped_before_they_become_bytes():
    model = make()
    with torch.no_grad():
        model.decoder.draw.bias.copy_(torch.linspace(-2, 3, len(model.decoder.draw.bias)))
    z = torch.randn(2, 8)
    drawn = model.decoder(z)
    assert drawn.min() < -1
    assert drawn.max() > 2
    assert torch.equal(model.decode(z), (drawn.clamp(0, 1) * 255).round().to(torch.uint8))


@pytest.mark.parametrize("channels", [1, 6])
def test_patches_are_the_image_cut_in_pieces(channels):
    model = make((32, 32, channels), 1)
    z = torch.randn(3, 8)
    torch.testing.assert_close(to_patches(model.decoder(z)), model.decoder.patches(z))


def test_patches_keep_neighbouring_pixels_together():
    image = torch.zeros(1, 16, 16, 2)
    image[0, 4:8, 8:12] = 1
    patches = to_patches(image)
    assert patches[0, 1 * 4 + 2].eq(1).all()
    assert patches.sum() == image.sum()


@pytest.mark.parametrize(("given", "weight"), [(None, 0.05), (1.0, 1.0), (0.9, 0.9)])
def test_the_decoders_loss_is_the_weighted_mean_over_frames(given, weight):
    torch.manual_seed(0)
    decoder = PatchDecoder((16, 16, 3), 3, 8, 4, older_weight=given)
    z, observation = torch.randn(5, 8), torch.randint(0, 256, (5, 16, 16, 9), dtype=torch.uint8)
    error = (decoder(z) - observation / 255).square()
    expected = (weight * error[..., :6].mean() * 2 + error[..., 6:].mean()) / (2 * weight + 1)
    torch.testing.assert_close(decoder.loss(z, observation), expected)


@pytest.mark.parametrize("frames", [1, 2])
def test_one_and_two_frames_have_equal_weights_by_default(frames):
    decoder = PatchDecoder((16, 16, 3), frames, 8, 4)
    z = torch.randn(5, 8)
    observation = torch.randint(0, 256, (5, 16, 16, 3 * frames), dtype=torch.uint8)
    expected = (decoder(z) - observation / 255).square().mean()
    torch.testing.assert_close(decoder.loss(z, observation), expected)


def test_an_argument_of_a_part_can_have_any_name():
    class Named(ConvEncoder):
        def __init__(self, *sizes, name, registry):
            super().__init__(*sizes)
            self.named = name, registry

    spec = make().spec
    kwargs = {"name": "resnet18", "registry": "timm"}
    chosen = spec.model_copy(update={"encoder": reference(Named), "encoder_kwargs": kwargs})
    assert WorldModel(chosen).encoder.named == ("resnet18", "timm")


@pytest.mark.parametrize(("device", "expected"), [("cpu", "float64"), ("mps", "float32")])
def test_float64_becomes_float32_on_mps_alone(monkeypatch, device, expected):
    moved = []
    monkeypatch.setattr(torch.Tensor, "to", lambda x, device: moved.append(str(x.dtype)))
    for values in (np.zeros(2), np.zeros(2, np.int64), torch.zeros(2, dtype=torch.float64)):
        as_device_tensor(values, torch.device(device))
    assert moved == [f"torch.{expected}", "torch.int64", f"torch.{expected}"]
