"""One file a group of options: its defaults, what each of them means, and the checks within the group."""
