"""Run a command: Ray, lock, record, ledger, isolation, progress, interruption."""
