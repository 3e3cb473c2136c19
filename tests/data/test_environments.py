"""Environments without a display."""

import os
import subprocess
import sys

SCRIPT = """
from worldmodel.data import collect
collect("CartPole-v1", "buffer", episodes=1, seeds=[0], steps=2, policy="random").close()
"""


def test_rendered_environments_are_collected_in_silence_where_there_is_no_display(tmp_path):
    hidden = {"DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "error" not in done.stderr
