"""Whole-slide images: collection -> slide -> tissue mask -> grid -> regions -> tiles. Neither torch nor ray."""
