"""Official checkpoints of published networks, as networks of `training.models`."""
