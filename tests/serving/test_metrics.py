"""What is counted of requests, as Prometheus's own reader finds it."""

from prometheus_client.parser import text_string_to_metric_families

from harness.serving.metrics import metrics


def samples(told):
    return [one for family in text_string_to_metric_families(told.text().decode()) for one in family.samples]


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
        for one in samples(told)
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


def test_replicas_that_are_asked_in_turn_are_series_of_their_own():
    """All of them, those of the process too: a number that falls is a new beginning for Prometheus."""
    first, second = (metrics(name) for name in ("a1", "b2"))
    for told, requests in ((first, 3), (second, 1)):
        model = told.of("churn", "onnx")
        for _ in range(requests):
            model.begun()
            model.ended(200, 0.001)
    told = [{(one.name, *sorted(one.labels.items())): one.value for one in samples(each)} for each in (first, second)]
    assert told[0].keys().isdisjoint(told[1].keys())
    assert [[count for key, count in each.items() if key[0] == "inference_requests_total"] for each in told] == [
        [3],
        [1],
    ]


def test_a_folder_for_the_counters_of_others_is_not_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    told = metrics()
    told.of("churn", "onnx").begun()
    assert {one.name for one in samples(told)} >= {"inference_in_flight", "process_open_fds"}
    assert list(tmp_path.iterdir()) == []
