"""Python interface: the names that `import histo` has."""
