"""Stream the tasks of a run through Ray Data: graph, workers, driver."""
