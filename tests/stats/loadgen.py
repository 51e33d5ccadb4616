"""A run of MLPerf's own LoadGen: single stream, one query after the other, of random lengths.

In, on the command line: a folder for its logs, the number of queries, the share whose early-stopping estimate it is to
make. Its detail log has its figures, its trace the latency of every query.
"""

import random
import sys
import time

import mlperf_loadgen as loadgen

folder, queries, share = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
random.seed(1)


def answer(samples: "list[loadgen.QuerySample]") -> None:
    for sample in samples:
        end_ns = time.perf_counter_ns() + int(random.expovariate(1) * 20_000)
        while time.perf_counter_ns() < end_ns:
            pass
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])


def nothing(*_: object) -> None:
    pass


asked, logs = loadgen.TestSettings(), loadgen.LogSettings()
asked.scenario, asked.mode = loadgen.TestScenario.SingleStream, loadgen.TestMode.PerformanceOnly
asked.min_query_count = asked.max_query_count = queries
asked.min_duration_ms = 0
asked.single_stream_expected_latency_ns = 20_000
asked.single_stream_target_latency_percentile = share
logs.log_output.outdir, logs.log_output.copy_summary_to_stdout, logs.enable_trace = folder, False, True
system, library = loadgen.ConstructSUT(answer, nothing), loadgen.ConstructQSL(16, 16, nothing, nothing)
loadgen.StartTestWithLogSettings(system, library, asked, logs, "")
loadgen.DestroyQSL(library)
loadgen.DestroySUT(system)
