import json
import os
import subprocess
import sys

import numpy as np

# `python -m benchmarks.kill` on smaller data and networks.
SMALL = """
from benchmarks import kill
from configs import arrays

def make_config(method, epochs):
    config = arrays.get_config(method)
    config.data.path = "data.npz"
    if method in kill.STREAMED:
        config.stream.kind, config.stream.num_tasks, config.method.capacity = "class", 2, 8
    for m in ("sound", "image"):
        config.encoders[m].name, config.encoders[m].depth, config.encoders[m].width = "mlp", 1, 4
    config.train.epochs, config.train.batch_size = epochs, 8
    config.train.keep_checkpoints = kill.KEEP
    return config

kill.make_config, kill.COMPARED, kill.SHAPES = make_config, ("unimodal:sound", "concat"), 12
kill.main()
"""


def test_what_is_killed_ends_as_if_it_had_not_been(tmp_path):
    rng, label = np.random.default_rng(0), np.arange(64) % 4
    np.savez(tmp_path / "data.npz", **{
        f"{split}/{name}": x for split in ("train", "val", "test")
        for name, x in (("label", label), ("sound", rng.normal(size=(64, 3)).astype("f")),
                        ("image", rng.normal(size=(64, 5)).astype("f")))})
    done = subprocess.run(
        [sys.executable, "-c", SMALL, "--jobs=samm,g_blending,compare,prepare", "--kills=1",
         "--epochs=4"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"},
        text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["job"] for each in found] == ["samm", "g_blending", "compare", "prepare"]
    for each in found:
        assert each["kills"] == 1 and each["same"] >= 1 and each["damaged checkpoints"] == 0
