"""Label studies and prepare volumes: one worker, one ledger, one driver."""
