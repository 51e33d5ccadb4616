"""Forms of the report: a file each, its name is the format's."""
