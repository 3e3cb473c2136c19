"""What `test_distributed.py` runs in one process and, started by torchrun, in two.

torchrun --nproc-per-node 2 in_processes.py losses BUFFER OUTPUT OBJECTIVE
torchrun --nproc-per-node 2 in_processes.py stopped CONFIG OUTPUT
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_training import new_model, tiny_config

import worldmodel
from worldmodel import cli, distributed, optim
from worldmodel.config import validate
from worldmodel.data import ReplayBuffer
from worldmodel.errors import InterruptedRunError, RunError
from worldmodel.phases import (
    decoder_heads_phase,
    encode_some,
    heads_phase,
    jepa_phase,
    refinement_phase,
)
from worldmodel.settings import read_yaml

UPDATES = 50


def losses(buffer, output, objective):
    """Write the losses of every phase, and a sum of the weights after it."""
    # Muon gives directions of the gradient that are rounding errors the size of all others.
    rate = {"updates": 1500, "batch_size": 16, "optimizer": "adamw", "learning_rate": 1e-3}
    config = tiny_config(
        objective={"horizon": 3, "offsets": (0, 1, 3), "name": objective},
        phase1=rate,
        refinement={**rate, "horizon": 3},
        phase2=rate,
    )
    found = {}
    with distributed.process_group(), ReplayBuffer.open(buffer) as data:
        model = new_model(config)
        with torch.no_grad():  # the other rank starts from other weights
            for parameter in model.parameters():
                parameter += distributed.process_rank()
        distributed.broadcast_module(model)

        def heads(model, data, config):
            encoded = encode_some(model, data, config, stream=4)
            return heads_phase(model, [encoded], config.phase2, updates=1500, seed=0)

        for make in (jepa_phase, refinement_phase, decoder_heads_phase, heads):
            phase = make(model, data, config)
            for i in range(UPDATES):
                terms = distributed.average_losses(phase.update())
                found |= {f"{phase.name} {i} {k}": float(v) for k, v in terms.items()}
        weights = [float(p.detach().double().sum()) for p in model.parameters()]
        Path(f"{output}.{distributed.process_rank()}").write_text(json.dumps([found, weights]))


class _Stop(worldmodel.Callback):
    def on_update(self, state):
        state.stop = state.phase == "phase 1" and state.update == 5


def stopped(config, output):
    """Train, and stop in the first process after some updates."""
    config = validate(read_yaml(Path(config)))
    try:
        worldmodel.train(config=config, progress=False, callbacks=[_Stop()])
    except InterruptedRunError as error:
        Path(f"{output}.{os.environ['RANK']}").write_text(str(error))


def finished(config, output):
    """Train, and write the path of the run if it is finished."""
    run = worldmodel.train(config=validate(read_yaml(Path(config))), progress=False)
    assert run.metrics.seed is not None
    Path(f"{output}.{os.environ['RANK']}").write_text(str(run.path))


def killed(config, output, rank):
    """Train, and kill one of the processes at the end of phase 1; write the error of the other."""
    end = optim.Phase.update

    def update(phase):
        if os.environ["RANK"] == rank and phase.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return end(phase)

    optim.Phase.update = update
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the other one otherwise
    try:
        worldmodel.train(config=validate(read_yaml(Path(config))), progress=False)
    except RunError as error:
        Path(f"{output}.{os.environ['RANK']}").write_text(str(error))


def command(*words):
    """Run the command line."""
    sys.argv[1:] = words
    cli.main()


torch.set_num_threads(1)
parts = (losses, stopped, finished, killed, command)
{part.__name__: part for part in parts}[sys.argv[1]](*sys.argv[2:])
