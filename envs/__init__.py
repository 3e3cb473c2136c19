"""Double-pendulum environments, made with `gymnasium.make` and `gymnasium.make_vec`."""
