r"""UPMC Food-101 on the features of CLIP ViT-B/32, after MLA (arXiv 2311.10707, table 4).

CLIP (arXiv 2103.00020) stays as it is: its features, 512 numbers of a title and 512 of a photograph, are
computed once, and a linear head learns on them with the paper's SGD, learning rate 1e-3, a tenth of it after
epoch 70 of 100, batches of 64. Titles are cut to 77 tokens with start and end; photographs are their middle
at 224 pixels, by CLIP's mean and deviation. Nothing is augmented, and features are taken as they come.

Two files are yours to bring: the weights (model.safetensors of openai/clip-vit-base-patch32 as it is, or any
other file of them through launch.convert) and bpe_simple_vocab_16e6.txt.gz (github.com/openai/CLIP). From raw
data to the table:

    python -m launch.convert --weights=ViT-B-32.pt --output=weights/clip_vit_b32.safetensors
    cp bpe_simple_vocab_16e6.txt.gz weights/clip_vocabulary.txt.gz
    python -m launch.prepare --dataset=food101 --source=DIR --output=data --short_side=224
    python -m launch.encode --config=configs/food101_clip.py --output=data/food101_clip
    python -m launch.compare --config=configs/food101_clip.py:mla,features --methods=late,mla --seeds=3

`food101_clip.py:mla` alone trains on the photographs and titles with frozen encoders, which gives the same in
hours; with --config.encoders.text.frozen=false, and visual, they are trained on.
`food101_clip.py:mla,smoke` is a size for smoke tests, without the files.

Published accuracy on test data in percent:

    method             text         visual          fused
    late       83.98 ± 0.08   63.07 ± 0.12   93.07 ± 0.08
    mla        85.34 ± 0.06   72.22 ± 0.10   93.47 ± 0.04
"""
from jaxmm.experiments.presets import RAW, clip_images, make_config, shrink
from jaxmm.config import Config, DataConfig, EncoderConfig, PreprocessConfig, TextConfig

MODALITIES = ("text", "visual")


def get_config(argument: str = "mla") -> Config:
    method, _, size = argument.partition(",")
    config, smoke = make_config(method if size == "features" else argument)
    if size == "features":
        config.data = DataConfig(name="arrays", path="data/food101_clip/food101.npz",
                                 preprocess={m: PreprocessConfig(**RAW) for m in MODALITIES})
        config.encoders |= {m: EncoderConfig(name="identity") for m in MODALITIES}
        return config
    config.data = DataConfig(name="food101", path="data/food101", preprocess={
        "text": TextConfig(vocabulary="weights/clip_vocabulary.txt.gz", length=77),
        "visual": clip_images()})
    for m in MODALITIES:
        config.encoders[m] = EncoderConfig(name="clip", weights="weights/clip_vit_b32.safetensors",
                                           frozen=True)
    return shrink(config) if smoke else config
