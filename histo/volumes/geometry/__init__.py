"""Place slices and voxels in the patient."""
