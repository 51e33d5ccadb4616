"""Load as Locust's own documentation would have it, for `test_queues`: users that send at a steady rate, each waiting
for its answer. `REQUESTS_PER_S` in the environment is the rate of each."""

import os

from locust import FastHttpUser, constant_throughput, task


class Visitor(FastHttpUser):
    wait_time = constant_throughput(float(os.environ["REQUESTS_PER_S"]))

    @task
    def ask(self) -> None:
        self.client.post("/v2/models/m/infer", data=b"{}")
