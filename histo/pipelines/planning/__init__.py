"""Plan a label run: headers, tiles, failures, disk and time, before it begins."""
