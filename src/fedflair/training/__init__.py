"""Training: the loop, the group of clients that a worker trains, a run's checkpoints."""
