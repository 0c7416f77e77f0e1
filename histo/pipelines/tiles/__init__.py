"""Write labelled tiles to tile tables, the fast form."""
