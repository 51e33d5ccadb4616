"""How load moves from step to step: a file each, its name is the shape's."""
