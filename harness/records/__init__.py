"""The frozen nouns everybody speaks: no I/O, no clock, no plug-in."""
