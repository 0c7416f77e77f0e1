"""Train and cross-validate: splits, workers, checkpoints, bundle, scores."""
