"""The command line: verbs, options, exit statuses, and what a terminal shows while a run goes on."""
