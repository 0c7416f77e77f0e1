"""Read series of NIfTI and DICOM files."""
