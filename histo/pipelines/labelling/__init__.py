"""Label slides: settings, plans, regions, tables, ledger."""
