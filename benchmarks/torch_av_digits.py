"""The MLA step of `python -m launch.bench` on av_digits, in PyTorch eager, to compare with.

    pip install torch
    python benchmarks/torch_av_digits.py [--threads 2]

The same small CNNs, batch, optimizer and RLS update on random inputs already in memory; the
augmentation that the JAX step includes is left out. Prints the median milliseconds of a step.
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from torch_accelerator import project_gradient     # of the same folder

BATCH, CLASSES, FEATURES = 64, 10, 64


class CNN(nn.Module):
    """Three stages of 3x3 convolution, batch norm, max-pool, ReLU; mean over positions; linear."""

    def __init__(self, width=16, depth=3):
        super().__init__()
        layers, channels = [], 1
        for stage in range(depth):
            out = width * 2**stage
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out),
                       nn.MaxPool2d(2), nn.ReLU()]
            channels = out
        self.body, self.dense = nn.Sequential(*layers), nn.Linear(channels, FEATURES)

    def forward(self, x):
        return F.relu(self.dense(self.body(x).mean((2, 3))))


def make_step():
    encoders = [CNN().to(memory_format=torch.channels_last) for _ in range(2)]
    head = nn.Linear(FEATURES, CLASSES)
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
    optimizers = [torch.optim.SGD(e.parameters(), **options) for e in encoders]
    head_optimizer = torch.optim.SGD(head.parameters(), **options)
    inputs = [torch.randn(BATCH, 1, size, size).contiguous(memory_format=torch.channels_last)
              for size in (32, 8)]
    labels = torch.randint(CLASSES, (BATCH,))
    projection = torch.eye(FEATURES)

    def step():
        nonlocal projection
        for encoder, optimizer, x in zip(encoders, optimizers, inputs):
            optimizer.zero_grad(set_to_none=True)
            head_optimizer.zero_grad(set_to_none=True)
            h = encoder(x)
            F.cross_entropy(head(h), labels).backward()
            projection = project_gradient(head, h, projection)
            optimizer.step()
            head_optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    step, times = make_step(), []
    for _ in range(5):
        step()
    begin = time.perf_counter()
    while time.perf_counter() - begin < 8:
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    print(f"av_digits_mla {statistics.median(times):.2f} ms/step (median of {len(times)})")


if __name__ == "__main__":
    main()
