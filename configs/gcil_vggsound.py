r"""VGGSound as a stream: classes come back in uneven shares (generalised class-incremental).

The protocol "GCIL" of SAMM, arXiv 2405.02766: 20 phases of 1000 clips of one to 50 classes, no clip
twice, until the data run out. Settings are those of `seq_vggsound.py`, the seed of the stream is
that of the released code; the learning rate was not published.

    python -m launch.train --config=configs/gcil_vggsound.py:samm
    python -m launch.train --config=configs/gcil_vggsound.py:samm --config.stream.long_tailed
    python -m launch.compare --config=configs/gcil_vggsound.py --methods=joint,sgd,er,samm \
        --seeds=3 --capacities=500,1000,2000

Published accuracy on the test clips of all classes seen, after the last phase, in percent (table of
GCIL), fused head:

    buffer  method      uniform     long-tailed
            joint  49.32 ± 0.43    47.17 ± 0.31
            sgd    24.73 ± 0.40    22.03 ± 0.67
       500  er     29.76 ± 0.82    28.58 ± 0.73
            samm   34.34 ± 0.78    34.16 ± 0.81
      1000  er     34.27 ± 0.77    31.60 ± 0.94
            samm   38.04 ± 1.51    36.15 ± 0.30
      2000  er     37.77 ± 0.80    35.66 ± 0.53
            samm   42.08 ± 1.89    40.33 ± 0.38
"""
from jaxmm.config import Config, StreamConfig
from jaxmm.experiments.configs import load


def get_config(method: str = "samm") -> Config:
    config = load(f"seq_vggsound:{method}")
    config.stream = StreamConfig(kind="generalized", num_tasks=20, phase_size=1000, max_classes=50,
                                 seed=1992)
    return config
