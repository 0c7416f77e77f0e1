"""Studies of heads, and slides of any size: drawn from a seed, so that it is known what is where."""
