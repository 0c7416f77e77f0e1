"""Settings of commands: texts of a person become one checked, frozen object."""
