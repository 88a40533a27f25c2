"""The options of a run: their groups and checks, YAML and the command line, and the shipped presets."""
