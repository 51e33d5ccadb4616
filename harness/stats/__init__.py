"""Pure arithmetic on arrays: no I/O, no clock, no plug-in."""
