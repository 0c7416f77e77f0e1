"""Train a network: batches, augmentation, phases, loop, checkpoints."""
