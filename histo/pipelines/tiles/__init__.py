"""Write labelled tiles to tile tables, the fast form; cut tiles from slides."""
