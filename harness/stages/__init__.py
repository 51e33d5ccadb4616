"""The measuring wing: each room does one stage of a run and writes plain records."""
