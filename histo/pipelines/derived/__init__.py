"""Files made of the tables of a label run: pictures, and exports."""
