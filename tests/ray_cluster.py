"""A Ray cluster of three nodes on this machine: a head without CPUs, and two nodes with one each.

In: a folder for its files, on the command line; on standard input, lines: `lose` ends one of its nodes, `gain` adds
one. Out: its address on standard output, and a line for each that it has obeyed. It ends when its standard input does.
"""

import os
import sys
from pathlib import Path

# The cluster notes its address below here, and not in the folder that all sessions of a machine share.
os.environ["RAY_TMPDIR"] = sys.argv[1]
Path(sys.argv[1], "ray").mkdir()

from ray.cluster_utils import Cluster  # noqa: E402

NODE = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "temp_dir": sys.argv[1]})
nodes = [cluster.add_node(**NODE, num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
say(cluster.address)
for line in sys.stdin:
    if line.strip() == "gain":
        nodes.append(cluster.add_node(**NODE, num_cpus=1))
    else:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    say("done")
cluster.shutdown()
