"""Train and predict: data, networks, fitting, prediction, scores. No Ray."""
