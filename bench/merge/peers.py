"""Peers of the merge benchmark: hivemind's averager (fp16) and gloo's all-reduce, four processes on loopback.

Prints one JSON object per measured round: {"peer", "parameters", "wire", "seconds"}.
Usage: peers.py PARAMETERS ROUNDS
"""

import json
import multiprocessing as mp
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore")
PEERS = 4


def say(peer, parameters, wire, seconds):
    print(json.dumps({"peer": peer, "parameters": parameters, "wire": wire, "seconds": round(seconds, 4)}), flush=True)


def gloo(rank, port, parameters, rounds, dtype_name):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=PEERS)
    tensor = torch.randn(parameters).to(getattr(torch, dtype_name))
    for round_index in range(rounds + 1):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(tensor)
        dist.barrier()
        if rank == 0 and round_index > 0:
            say("gloo", parameters, dtype_name, time.perf_counter() - start)
    dist.destroy_process_group()


def hivemind_peer(index, initial, parameters, rounds, barrier, queue):
    import hivemind
    import torch

    torch.set_num_threads(1)
    peers = [] if index == 0 else initial
    dht = hivemind.DHT(start=True, initial_peers=peers, host_maddrs=["/ip4/127.0.0.1/tcp/0"], use_relay=False,
                       use_auto_relay=False)
    if index == 0:
        for _ in range(PEERS - 1):
            queue.put([str(address) for address in dht.get_visible_maddrs(latest=True)])
    averager = hivemind.averaging.DecentralizedAverager(
        [torch.randn(parameters)], dht, prefix="shoal-bench", target_group_size=PEERS, min_group_size=PEERS,
        min_matchmaking_time=2.0, request_timeout=1.0, compression=hivemind.compression.Float16Compression(), start=True,
    )
    from hivemind.averaging.control import AveragingStage

    for round_index in range(rounds + 1):
        barrier.wait()
        control = averager.step(wait=False, timeout=60, require_trigger=False)
        # Matchmaking is hivemind's quorum; the merge itself starts when the group is assembled.
        while control.stage.value < AveragingStage.RUNNING_ALLREDUCE.value and not control.done():
            time.sleep(0.0005)
        start = time.perf_counter()
        control.result(timeout=60)
        seconds = time.perf_counter() - start
        if index == 0 and round_index > 0:
            say("hivemind", parameters, "fp16", seconds)
    barrier.wait()
    averager.shutdown()
    dht.shutdown()


def run_hivemind(parameters, rounds):
    barrier, queue = mp.Barrier(PEERS), mp.Queue()
    first = mp.Process(target=hivemind_peer, args=(0, [], parameters, rounds, barrier, queue))
    first.start()
    others = [
        mp.Process(target=hivemind_peer, args=(index, queue.get(timeout=60), parameters, rounds, barrier, queue))
        for index in range(1, PEERS)
    ]
    for process in others:
        process.start()
    for process in [first, *others]:
        process.join(timeout=60 + 30 * rounds)
        process.terminate()


def run_gloo(parameters, rounds, dtype_name, port):
    workers = [mp.Process(target=gloo, args=(rank, port, parameters, rounds, dtype_name)) for rank in range(PEERS)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(timeout=120)
        process.terminate()


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    mp.set_start_method("fork")  # hivemind starts processes of its own, which spawn cannot hand over
    parameters, rounds = int(sys.argv[1]), int(sys.argv[2])
    run_gloo(parameters, rounds, "float32", free_port())
    run_gloo(parameters, rounds, "bfloat16", free_port())
    run_hivemind(parameters, rounds)
