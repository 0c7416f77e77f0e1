"""Whole-slide images: collection, slide, tissue, grid, tiles. No torch, no Ray."""
