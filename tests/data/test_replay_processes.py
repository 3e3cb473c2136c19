"""Replay buffers between processes: killed writers, readers beside a writer, flat memory."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from episodes import assert_intact, create, episode, fill

from worldmodel.data import ReplayBuffer
from worldmodel.errors import ReplayBufferError

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def start(script, *arguments):
    """Run a Python script that may import `episodes`, its output piped."""
    command = [sys.executable, "-u", "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


APPEND_FOREVER = """
    import sys, time
    from episodes import create, episode
    from worldmodel.data import ReplayBuffer
    path, seed, steps, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    buffer = ReplayBuffer.open(path, append=True)
    while True:
        buffer.add_episode(**episode(seed, steps))
        seed += 1
        print(seed, flush=True)
        time.sleep(pause)
"""


def test_a_killed_writer_loses_at_most_the_episode_it_was_writing(tmp_path):
    create(tmp_path).close()
    reported = 0
    for round_ in range(3):
        process = start(APPEND_FOREVER, tmp_path, reported, 400, 0)
        for _ in range(10 + 7 * round_):
            reported = int(process.stdout.readline())
        time.sleep(0.003 * round_)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            reported = int(line)
        process.wait()
        found = ReplayBuffer.open(tmp_path)
        assert reported <= len(found) <= reported + 1
        assert found.seeds.tolist() == list(range(len(found)))
        assert_intact(found)
        reported = len(found)
    with ReplayBuffer.open(tmp_path, append=True) as buffer:
        fill(buffer, range(reported, reported + 2))
        assert_intact(buffer)


def test_a_reader_beside_a_writer_sees_only_complete_episodes(tmp_path):
    create(tmp_path).close()
    process = start(APPEND_FOREVER, tmp_path, 0, 40, 0.05)
    try:
        counts = []
        for _ in range(12):
            reported = int(process.stdout.readline())
            with ReplayBuffer.open(tmp_path) as reader:
                assert_intact(reader)
                counts.append(len(reader))
            assert counts[-1] >= reported
        assert counts == sorted(counts)
        with pytest.raises(ReplayBufferError, match="one writer at a time"):
            ReplayBuffer.open(tmp_path, append=True)
    finally:
        process.kill()
        process.communicate()
    with ReplayBuffer.open(tmp_path, append=True) as buffer:
        buffer.add_episode(**episode(len(buffer), 3))
        assert_intact(buffer)


MEASURE_MEMORY = """
    import sys
    from pathlib import Path
    import gymnasium as gym
    import numpy as np
    from worldmodel.data import ReplayBuffer

    def anonymous():
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("Anonymous")) * 1024

    frames = np.random.default_rng(0).integers(0, 256, (101, 64, 64, 3), dtype=np.uint8)
    actions, rewards = np.zeros((100, 2), np.float32), np.zeros(100, np.float32)
    space, rng = gym.spaces.Box(-1, 1, (2,)), np.random.default_rng(0)
    buffer = ReplayBuffer.create(
        sys.argv[1], frame_shape=(64, 64, 3), action_space=space, metadata={}
    )
    out = buffer.empty_windows(64, 10)
    for megabytes in (16, 256):
        while buffer.num_frames * 64 * 64 * 3 < megabytes * 2**20:
            buffer.add_episode(frames, actions, rewards, False)
        for _ in range(20):
            buffer.sample(64, 10, rng, out=out)
        print(anonymous())
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_the_process_memory_stays_flat_as_the_data_grows(tmp_path):
    output, _ = start(MEASURE_MEMORY, tmp_path).communicate()
    small, large = map(int, output.split())
    assert large - small < 4 * 2**20


def test_reading_data_loads_neither_torch_nor_numba():
    script = "import sys, worldmodel.data; print({'torch', 'numba'} & sys.modules.keys())"
    assert start(script).communicate()[0].strip() == "set()"
