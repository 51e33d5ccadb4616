"""The forest as a BentoML service, run in BentoML's own environment: `bentoml serve bento_service:Forest`.

In: the model's file in `PEERS_MODEL`. Out: `POST /predict` with `{"rows": [[...]]}` answers the classes' probabilities.
"""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Forest:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["PEERS_MODEL"])

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(rows)
