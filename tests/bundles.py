"""What candidates of tests have in common."""

from harness.records.candidate import Candidate


def candidate_of(name, family, signature, artifacts):
    return Candidate(
        id=name,
        origin="baseline",
        configuration={"family": family},
        cv_score=None,
        fit_s=0.1,
        signature=signature,
        metric="r2" if signature.task == "regression" else "roc_auc",
        artifacts=tuple(artifacts),
    )
