"""The same stage in PyTorch. Speaks the line protocol of src/main.rs.

    python peer.py eager|fused SEQUENCE BATCH THREADS
"""
import math
import resource
import sys
import time

import torch

kind, (sequence, batch, threads) = sys.argv[1], map(int, sys.argv[2:5])
torch.set_num_threads(threads)
torch.manual_seed(0)
D, HEADS, FFN, BLOCKS = 512, 8, 1376, 4
WIDTH = D // HEADS


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.n1, self.n2 = torch.nn.RMSNorm(D, eps=1e-5), torch.nn.RMSNorm(D, eps=1e-5)
        self.qkv, self.o = linear(D, 3 * D), linear(D, D)
        self.gate_up, self.down = linear(D, 2 * FFN), linear(FFN, D)

    def forward(self, x, cos, sin, mask):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.n1(x)).view(b, t, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
        turn = lambda y: y * cos + torch.cat([-y[..., WIDTH // 2:], y[..., :WIDTH // 2]], -1) * sin
        q, k = turn(q), turn(k)
        if kind == "fused":
            a = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            a = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH) + mask).softmax(-1) @ v
        x = x + self.o(a.transpose(1, 2).reshape(b, t, D))
        gate, up = self.gate_up(self.n2(x)).chunk(2, -1)
        return x + self.down(torch.nn.functional.silu(gate) * up)


blocks = torch.nn.ModuleList(Block() for _ in range(BLOCKS))
angle = torch.arange(sequence)[:, None] * 10000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)[None]
cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
mask = torch.full((sequence, sequence), -math.inf).triu(1)
optimiser = torch.optim.AdamW(blocks.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
x0, d = torch.rand(batch, sequence, D) - 0.5, torch.rand(batch, sequence, D) - 0.5

for line in sys.stdin:
    if line.strip() != "step":
        break
    start, cpu = time.perf_counter(), time.process_time()
    x = x0.detach().requires_grad_()
    y = x
    for block in blocks:
        y = block(y, cos, sin, mask)
    forward = time.perf_counter()
    y.backward(d)
    backward = time.perf_counter()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    end = time.perf_counter()
    print(end - start, forward - start, backward - forward, time.process_time() - cpu, flush=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
