"""The run folder and the scenario files: everything that reaches a disk goes through here."""
