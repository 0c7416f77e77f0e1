"""From the files of an MRI or CT study to one array: discovery, reading, orientation, slices, intensity."""
