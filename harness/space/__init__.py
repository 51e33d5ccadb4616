"""What can be searched, and how a configuration becomes a scikit-learn Pipeline over raw columns."""
