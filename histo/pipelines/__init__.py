"""The jobs: the only modules that import ray. Each module is one job, or one part of it."""
