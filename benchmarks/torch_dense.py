"""Training steps of `python -m benchmarks.dense` in PyTorch, to compare with on CPU.

    python benchmarks/torch_dense.py esanet34 --seconds=20

The same networks, losses and optimizer on random inputs that are in memory. Prints, as a line of JSON, the median
milliseconds of a step, the largest resident memory from the first timed step on, and the seconds of the first step.
"""
import argparse
import json
import pathlib
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

BATCH, CLASSES = 2, 40
LAYERS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
LAYOUTS = ("first", "last")


# ResNet3D-18.

def conv3d(inputs, outputs, size, stride=1):
    """Convolution and batch norm."""
    size = (size,) * 3 if isinstance(size, int) else size
    return nn.Sequential(nn.Conv3d(inputs, outputs, size, stride, tuple(k // 2 for k in size), bias=False),
                         nn.BatchNorm3d(outputs))


class BasicBlock3D(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first, self.second = conv3d(inputs, outputs, 3, stride), conv3d(outputs, outputs, 3)
        self.skip = conv3d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.skip(x))


class ResNet3D(nn.Module):
    """Clips [B, 3, T, H, W] -> logits [B, C]."""

    def __init__(self):
        super().__init__()
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        self.body = nn.Sequential(
            conv3d(3, 64, (3, 7, 7), (1, 2, 2)), nn.ReLU(),
            *(BasicBlock3D(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:])))
        self.head = nn.Linear(512, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3, 4)))


# ESANet.

def conv(inputs, outputs, size, stride=1):
    """Convolution and batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs))


def conv_relu(inputs, outputs, size, stride=1):
    return nn.Sequential(*conv(inputs, outputs, size, stride), nn.ReLU())


class Block1D(nn.Module):
    """Two pairs of convolutions 3 x 1 and 1 x 3, with biases."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()

        def pair(inputs, stride):
            return nn.Sequential(nn.Conv2d(inputs, outputs, (3, 1), (stride, 1), (1, 0)), nn.ReLU(),
                                 nn.Conv2d(outputs, outputs, (1, 3), (1, stride), (0, 1)),
                                 nn.BatchNorm2d(outputs, eps=1e-3))

        self.body = nn.Sequential(pair(inputs, stride), nn.ReLU(), pair(outputs, 1))
        self.skip = conv(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


def make_encoder(channels):
    """The stem and four stages, of which the first begins with a max-pool."""
    stages, inputs = [conv_relu(channels, 64, 7, 2)], 64
    for i, (width, blocks) in enumerate(zip(WIDTHS, LAYERS)):
        first = Block1D(inputs, width, 2 if i else 1)
        start = [nn.MaxPool2d(3, 2, 1)] if i == 0 else []
        stages.append(nn.Sequential(*start, first, *(Block1D(width, width) for _ in range(blocks - 1))))
        inputs = width
    return nn.ModuleList(stages)


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 16, 1), nn.ReLU(),
                                  nn.Conv2d(channels // 16, channels, 1), nn.Sigmoid())

    def forward(self, x):
        return x * self.gate(x)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class ESANet(nn.Module):
    """Images [B, 3, H, W] and depth [B, 1, H, W] -> logits at full size, and at 1/32, 1/16 and 1/8 of it."""

    def __init__(self):
        super().__init__()
        self.main, self.other = make_encoder(3), make_encoder(1)
        sizes = (64, *WIDTHS)
        self.main_gates, self.other_gates = (nn.ModuleList(map(Squeeze, sizes)) for _ in range(2))
        self.bins = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(n), *conv_relu(512, 256, 1)) for n in (1, 5))
        self.context = conv_relu(1024, 512, 1)
        widths = (512, 512, 256, 128)
        self.stages = nn.ModuleList(nn.Sequential(*conv_relu(a, b, 3), *(Block1D(b, b) for _ in range(3)))
                                    for a, b in zip(widths, widths[1:]))
        self.skips = nn.ModuleList(conv_relu(a, b, 1) for a, b in zip((256, 128, 64), widths[1:]))
        self.ups = nn.ModuleList(map(Upsample, widths[1:]))
        self.sides = nn.ModuleList(nn.Conv2d(b, CLASSES, 1) for b in widths[1:])
        self.out = nn.Sequential(nn.Conv2d(128, CLASSES, 3, padding=1), Upsample(CLASSES), Upsample(CLASSES))

    def forward(self, x, y):
        maps = []
        for main, other, main_gate, other_gate in zip(self.main, self.other, self.main_gates, self.other_gates):
            y = other(y)
            x = main_gate(main(x)) + other_gate(y)
            maps.append(x)
        size = x.shape[2:]
        x = self.context(torch.cat([x, *(F.interpolate(pool(x), size, mode="nearest") for pool in self.bins)], 1))
        outputs = []
        for stage, skip, up, side, earlier in zip(self.stages, self.skips, self.ups, self.sides, maps[3:0:-1]):
            x = stage(x)
            outputs.append(side(x))
            x = up(x) + skip(earlier)
        return self.out(x), *outputs


def make_workload(name):
    """The network, its inputs, and the loss of its outputs."""
    if name == "resnet3d18":
        label = torch.randint(CLASSES, (BATCH,))
        return ResNet3D(), [torch.randn(BATCH, 3, 32, 112, 112)], lambda z: F.cross_entropy(z, label)
    label = torch.randint(CLASSES, (BATCH, 256, 320))
    inputs = [torch.randn(BATCH, channels, 256, 320) for channels in (3, 1)]
    return ESANet(), inputs, lambda outputs: sum(
        F.cross_entropy(z, label[:, ::256 // z.shape[2], ::256 // z.shape[2]]) for z in outputs)


def make_step(name, channels_last):
    """A function that makes one step of a workload."""
    net, inputs, loss_fn = make_workload(name)
    if channels_last:
        layout = torch.channels_last_3d if name == "resnet3d18" else torch.channels_last
        net, inputs = net.to(memory_format=layout), [x.to(memory_format=layout) for x in inputs]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(net(*inputs))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def time_two(step):
    """Seconds of a first step and a second one."""
    times = [time.perf_counter()]
    for _ in range(2):
        step()
        times.append(time.perf_counter())
    return times[1] - times[0], times[2] - times[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=("resnet3d18", "esanet34"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--layout", choices=LAYOUTS, default="", help="channels come first or last in memory; by "
                        "default what makes the second of two steps faster")
    args = parser.parse_args()
    torch.manual_seed(0)
    layout = args.layout or min(LAYOUTS, key=lambda layout: time_two(make_step(args.workload, layout == "last"))[1])
    step = make_step(args.workload, layout == "last")
    first, _ = time_two(step)
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")     # forgets the largest memory
    times, end = [], time.perf_counter() + args.seconds
    while time.perf_counter() < end or len(times) < 2:
        begin = time.perf_counter()
        loss = step()
        times.append(1e3 * (time.perf_counter() - begin))
    assert loss == loss
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({"milliseconds": statistics.median(times), "mib": peak, "first_seconds": first,
                      "channels": layout}))


if __name__ == "__main__":
    main()
