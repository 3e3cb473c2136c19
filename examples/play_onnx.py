"""Plays the world model that `worldmodel export RUN --to DIR` wrote, in a terminal with colors.

It needs numpy and onnxruntime only: python examples/play_onnx.py DIR [STEPS]
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

if len(sys.argv) < 2:
    sys.exit(__doc__)
folder, steps = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
world, rng = json.loads((folder / "world.json").read_text()), np.random.default_rng()
size, channels = world["action"]["dim"], world["observation"]["frame_shape"][-1]
parts = {
    name: onnxruntime.InferenceSession(folder / part["file"])
    for name, part in world["parts"].items()
}
z = rng.choice(world["starts"], size=1).astype(np.float32)  # (1, D)
for step in range(steps):
    if step % 5 == 0:  # a random action, scaled to [-1, 1] or one-hot, is held for five steps
        box = world["action"]["kind"] == "box"
        action = rng.uniform(-1, 1, size) if box else np.eye(size)[rng.integers(size)]
        action = action[None].astype(np.float32)  # (1, A)
    z_next = parts["predictor"].run(None, {"latent": z, "action": action})[0]
    transition = {"latent": z, "action": action, "next_latent": z_next}
    reward, end = (parts[name].run(None, transition)[0][0] for name in ("reward", "termination"))
    z = np.clip(z_next, world["latent"]["low"], world["latent"]["high"]).astype(np.float32)
    if "decoder" in parts:  # draws the newest frame, two rows of pixels a line
        image = parts["decoder"].run(None, {"latent": z})[0][0, ..., -channels:]
        image = np.repeat((255 * image).astype(int), 3 // channels, axis=-1)
        for upper, lower in zip(image[::2], image[1::2]):
            pixels = (";".join(map(str, [38, 2, *u, 48, 2, *v])) for u, v in zip(upper, lower))
            print("".join(f"\x1b[{colors}m▀" for colors in pixels) + "\x1b[0m")
    print(f"step {step + 1}: reward {reward:+.3f}, probability of the end {end:.3f}")
    if end >= 0.5:
        break
    time.sleep(world["seconds_per_step"])
