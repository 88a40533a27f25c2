"""One file a command of the command line: it reads arguments, calls the rooms below, and prints."""
