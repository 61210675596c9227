"""Training steps of the fixed workloads of `python -m launch.bench` in PyTorch, to compare with on a GPU.

    python benchmarks/torch_accelerator.py mla_small --precision=bfloat16 --batch=1024 --compile --json

The workloads of concatenation and MLA: the same networks, optimizer and RLS update on random inputs that
are in memory, convolutions channels-last. Products are those of float32, or of TF32; with bfloat16 the
encoders run under autocast. Prints the median milliseconds of a step, of groups of steps that are waited for together.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

ALPHA = 0.1
WORKLOADS = {
    # name: (method, batch, classes, encoder, shapes of an example with the channels last)
    "mla_small": ("mla", 64, 10, "small", [(32, 32), (16, 16)]),
    "concat_small": ("concat", 64, 10, "small", [(32, 32), (16, 16)]),
    "mla_cremad": ("mla", 16, 6, "standard", [(257, 188), (3, 224, 224, 3)]),
    "mla_features": ("mla", 64, 4, "mlp", [(512,), (1024,), (1024,)]),
    "concat_features": ("concat", 64, 4, "mlp", [(512,), (1024,), (1024,)]),
}


def conv(inputs, outputs, size, stride=1):
    """Convolution and batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
                         nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection, 1x1 where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first, self.second = conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3)
        self.skip = conv(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.skip(x))


class ResNet18(nn.Module):
    """Images [B, C, H, W] or frames [B, T, C, H, W], whose features are averaged -> [B, 512]."""

    def __init__(self, channels, stem):
        super().__init__()
        start = [conv(channels, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)] if stem == "standard" else [
            conv(channels, 64, 3), nn.ReLU()]
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        blocks = [BasicBlock(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:])]
        self.body = nn.Sequential(*start, *blocks)

    def forward(self, x):
        features = self.body(x.flatten(0, -4)).mean((2, 3))
        return features.view(*x.shape[:-3], -1).mean(1) if x.dim() == 5 else features


def make_encoder(kind, shape):
    """The network for examples of this shape."""
    if kind == "mlp":
        sizes = [*shape, 128, 128, 128]
        return nn.Sequential(*(layer for a, b in zip(sizes, sizes[1:])
                               for layer in (nn.Linear(a, b), nn.ReLU())))
    return ResNet18(shape[-1] if len(shape) > 2 else 1, kind).to(memory_format=torch.channels_last)


def make_input(batch, shape, device):
    """A random batch: vectors, [B, C, H, W] or [B, T, C, H, W], with the channels last in memory."""
    x = torch.randn(batch, *shape, device=device)
    if x.dim() == 3:
        return x[:, None].to(memory_format=torch.channels_last)
    return x if x.dim() == 2 else x.movedim(-1, -3)


def project_gradient(head, h, projection):
    """Projects the gradient of a head on features h [B, s]; returns the projection [s, s] of MLA after them."""
    with torch.no_grad():
        mean = h.mean(0)
        k = projection @ mean
        projection = projection - torch.outer(k, k) / (ALPHA + mean @ k)
        head.weight.grad = head.weight.grad @ projection
    return projection


def make_step(name, batch, device, autocast, compiled):
    """A function that makes one step of a workload."""
    method, _, classes, kind, shapes = WORKLOADS[name]
    encoders = [make_encoder(kind, shape).to(device) for shape in shapes]
    inputs = [make_input(batch, shape, device) for shape in shapes]
    labels = torch.randint(classes, (batch,), device=device)
    size = 128 if kind == "mlp" else 512
    head = nn.Linear(size * (len(shapes) if method == "concat" else 1), classes).to(device)
    projection = torch.eye(size, device=device)

    def optimizer(*modules):
        return torch.optim.SGD([p for m in modules for p in m.parameters()], lr=1e-3, momentum=0.9,
                               fused=device == "cuda")

    forward = [torch.compile(e, dynamic=False) if compiled else e for e in encoders]

    def encode(i):
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            return forward[i](inputs[i]).float()

    def concat_step():
        optimizers[0].zero_grad(set_to_none=True)
        F.cross_entropy(head(torch.cat([encode(i) for i in range(len(inputs))], 1)), labels).backward()
        optimizers[0].step()

    def mla_step():
        nonlocal projection
        for i in range(len(inputs)):
            own = optimizers[i], optimizers[-1]
            for each in own:
                each.zero_grad(set_to_none=True)
            h = encode(i)
            F.cross_entropy(head(h), labels).backward()
            projection = project_gradient(head, h, projection)
            for each in own:
                each.step()

    if method == "concat":
        optimizers = [optimizer(*encoders, head)]
        return concat_step
    optimizers = [*map(optimizer, encoders), optimizer(head)]
    return mla_step


def time_steps(step, seconds, wait):
    """Median milliseconds of a step, over five groups of them."""
    for _ in range(3):
        begin = time.perf_counter()
        step()
        wait()
        once = time.perf_counter() - begin
    count, times = max(1, int(seconds / 5 / once)), []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(count):
            step()
        wait()
        times.append(1e3 * (time.perf_counter() - begin) / count)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=0, help="0: the workload's own")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", action="store_true", help="as one line")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision != "float32"
    torch.backends.cudnn.benchmark = True
    on_gpu = args.device == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    batch = args.batch or WORKLOADS[args.workload][1]
    step = make_step(args.workload, batch, args.device, args.precision == "bfloat16", args.compile)
    begin = time.perf_counter()
    step()
    wait()
    first = time.perf_counter() - begin
    milliseconds = round(time_steps(step, args.seconds, wait), 4)
    found = {args.workload: milliseconds, "compile_seconds": round(first, 2)}
    if on_gpu:
        found["peak_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(found) if args.json else f"{args.workload} {milliseconds:.2f} ms/step")


if __name__ == "__main__":
    main()
