"""The forest as MLflow keeps models, run in MLflow's own environment: `python mlflow_model.py MODEL.joblib FOLDER`."""

import sys

import joblib
import mlflow.sklearn

if __name__ == "__main__":
    model, folder = sys.argv[1:]
    mlflow.sklearn.save_model(
        joblib.load(model),
        folder,
        pyfunc_predict_fn="predict_proba",
        skops_trusted_types=["sklearn.tree._tree.Tree"],
    )
