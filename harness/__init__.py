"""An AutoML benchmarking and scalability test harness.

Importing the package imports nothing else: every heavy library (Ray, Locust, Optuna, FLAML, scikit-learn, matplotlib)
waits behind the one room that is its door. `harness/README.md` is the map.
"""

__version__ = "0.1.0"
