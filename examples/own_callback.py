"""Your own callback: record the validation error, and stop a training that diverges.

python -m examples.own_callback
"""

import worldmodel


class History(worldmodel.Callback):
    """Keeps (update, relative forecast error) of phase 1; a stopped run can be resumed."""

    def __init__(self, diverged: float = 10.0) -> None:
        self.diverged, self.errors = diverged, []

    def on_log(self, state: worldmodel.TrainingState) -> None:
        error = state.scalars.get("validation/relative_error")
        if error is not None:
            self.errors.append((state.update, error))
            state.stop = error > self.diverged


if __name__ == "__main__":
    history = History()
    run = worldmodel.train(preset="quick", callbacks=[history])
    print(history.errors[-1], run.metrics.forecast.latent.error)
