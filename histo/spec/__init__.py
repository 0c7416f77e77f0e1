"""Settings of commands: what a person writes becomes one checked, frozen object."""
