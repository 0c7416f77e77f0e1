"""Commands: a door for each, and the rooms behind the doors."""
