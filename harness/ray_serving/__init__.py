"""Ray Serve, wherever it runs: in a session of our own, or on a cluster that others use too."""
