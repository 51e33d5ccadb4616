"""Where a candidate is served: a file each, its name is the target's."""
