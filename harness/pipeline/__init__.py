"""The room that introduces the others to each other: plug-ins by name, the plan, the run, the report."""
