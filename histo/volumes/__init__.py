"""MRI and CT studies to arrays: finding, reading, orientation, intensity."""
