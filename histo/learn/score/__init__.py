"""Score predictions: metrics, intervals, curves, a colour baseline."""
