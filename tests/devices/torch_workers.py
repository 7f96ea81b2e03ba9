"""One of several processes: each case under DistributedDataParallel."""

import datetime
import os
import sys

rank, world_size, store = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if sys.platform == "linux":
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"

import keras  # noqa: E402
import torch  # noqa: E402
from devices.cases import CASES, EMBEDDINGS, N, write  # noqa: E402
from torch import distributed  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from tripletloss.distribution import gather  # noqa: E402
from tripletloss.training import GradientCache  # noqa: E402

torch.set_num_threads(1)
timeout = datetime.timedelta(seconds=30)
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=timeout)


def run(case, pieces=None):
    """The mean of the processes' losses, and the gradient that DistributedDataParallel leaves on each."""
    inputs, labels, weights = (None if x is None else torch.tensor(x) for x in case.inputs(rank))
    model = keras.Sequential([keras.Input((N,)), keras.layers.Dense(3, use_bias=False)])
    model.set_weights([EMBEDDINGS])
    model = GradientCache(model, pieces) if pieces else model
    parallel = DistributedDataParallel(model)  # has to be there as long as the gradient is not
    share = case.make_loss(pooled=True)(labels, parallel(inputs), weights)
    share.backward()
    loss = share.detach().clone()
    distributed.all_reduce(loss)
    return {"loss": float(loss) / world_size, "gradient": model.trainable_variables[0].value.grad.tolist()}


def gathered(dtype):
    """Numbers of a dtype, two from the first and three from the second process."""
    numbers = torch.tensor([[1, 2], [3, 4, 5]][rank], dtype=torch.int64).to(getattr(torch, dtype))
    rows, offset = gather(numbers)
    return {"rows": rows.to(torch.float64).tolist(), "dtype": str(rows.dtype), "offset": offset}


results = {name: run(case) for name, case in CASES.items() if len(case.sizes) == world_size}
name = "hard/semi-hard, mean_with_sample_weight, weighted"
results[f"{name}, in pieces"] = run(CASES[name], pieces=3)
for dtype in ("int8", "int16", "int32", "int64", "uint64", "float16", "bfloat16", "float64"):
    results[f"gathered {dtype}"] = gathered(dtype)
distributed.destroy_process_group()
if rank == 0:
    write(results)
