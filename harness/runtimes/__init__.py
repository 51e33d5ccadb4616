"""How a candidate computes: a file each, its name is the runtime's."""
