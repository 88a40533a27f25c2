"""What the operating system gives, in one way for all rooms: files that survive, locks, processes, cores, terminal."""
