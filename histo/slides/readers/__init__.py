"""Read the pixels of slides: through OpenSlide, or TIFF file blocks directly."""
