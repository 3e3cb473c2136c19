"""A sweep of trainings that take seconds."""

BASE = {
    "image_size": 16,
    "model": {"latent_dim": 8, "width": 4, "hidden": 32},
    "data": {"size": 32, "heldout_size": 8},
    "phase1.batch_size": 16,
    "phase2.batch_size": 16,
    "evaluation": {
        "resamples": 20,
        "steps": 21,
        "probe": {"updates": 20, "observations": 500, "baseline_observations": 200},
    },
}


def tiny_sweep(folder, **changes):
    """The content of a sweep file, with its data in a folder."""
    base = {**BASE, "data": {**BASE["data"], "dir": str(folder / "data")}}
    return {"preset": "smoke", "base": base, "seeds": [0, 1], **changes}
