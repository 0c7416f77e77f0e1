"""Convert a bundle for OpenVINO."""
