"""Run a bundle: one interface, by torch or by OpenVINO."""
