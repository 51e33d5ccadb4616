"""The reading wing: from the records of a run to a document. Imports no Ray, Locust, Optuna or FLAML."""
