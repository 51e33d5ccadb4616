"""Search engines: a file each, its name is the engine's."""
