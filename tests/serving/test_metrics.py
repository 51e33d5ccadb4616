"""What is counted of requests, as Prometheus's own reader finds it."""

from prometheus_client.parser import text_string_to_metric_families

from harness.serving.metrics import metrics


def test_requests_are_counted_by_status_and_by_the_bounds_of_their_time():
    told = metrics()
    model = told.of("churn", "onnx")
    for status, took_s in ((200, 0.0001), (200, 0.0002), (400, 0.3), (503, 20.0)):
        model.begun()
        model.ended(status, took_s)
    model.reject()
    model.begun()
    told.of("other", "onnx")
    found = {
        (one.name, one.labels.get("code", one.labels.get("le"))): one.value
        for family in text_string_to_metric_families(told.text().decode())
        for one in family.samples
        if one.labels.get("model") == "churn"
    }
    by_code = {code: count for (name, code), count in found.items() if name == "inference_requests_total"}
    up_to = {bound: count for (name, bound), count in found.items() if name == "inference_request_seconds_bucket"}
    assert by_code == {"200": 2, "400": 1, "503": 1}
    assert {bound: up_to[bound] for bound in ("0.0001", "0.00025", "0.25", "0.5", "10.0", "+Inf")} == {
        "0.0001": 1,
        "0.00025": 2,
        "0.25": 2,
        "0.5": 3,
        "10.0": 3,
        "+Inf": 4,
    }
    assert found["inference_request_seconds_count", None] == 4
    assert abs(found["inference_request_seconds_sum", None] - 20.3003) < 1e-9
    assert (found["inference_rejected_total", None], found["inference_in_flight", None]) == (1, 1)
