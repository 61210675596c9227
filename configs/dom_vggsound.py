r"""VGGSound as a stream: five labels whose classes change with the task (domain-incremental).

The protocol "Dom" of SAMM, arXiv 2405.02766: the labels are five super-categories (animals, music,
people, sports, vehicle) of 20 classes, and each of five tasks brings four new classes of every one.
Settings are those of `seq_vggsound.py`; the learning rate was not published.

Which class is in which super-category stands in `jaxmm/prepare/vggsound_mmcl.csv`; another
file with the columns `class` and `coarse` makes other labels (--config.stream.coarse=FILE.csv).

    python -m launch.train --config=configs/dom_vggsound.py:samm
    python -m launch.compare --config=configs/dom_vggsound.py --methods=joint,sgd,er,samm \
        --seeds=3 --capacities=500,1000,2000

Published mean accuracy over the tasks after the last one, in percent (main table):

    buffer  method          audio        visual         fused
            joint    57.48 ± 0.80  42.87 ± 2.04  61.66 ± 1.40
            sgd      26.89 ± 0.17  24.80 ± 0.12  27.38 ± 0.35
       500  er       31.31 ± 0.80  27.36 ± 1.60  31.85 ± 1.09
            samm     36.27 ± 0.29  24.98 ± 0.41  35.74 ± 0.59
      1000  er       35.31 ± 0.65  27.73 ± 0.99  36.00 ± 1.08
            samm     38.63 ± 0.43  26.53 ± 0.12  39.49 ± 0.36
      2000  er       38.23 ± 0.72  29.28 ± 0.63  39.30 ± 1.55
            samm     42.53 ± 0.47  28.12 ± 0.31  43.72 ± 0.34
"""
from jaxmm.config import Config, StreamConfig
from jaxmm.experiments.configs import load


def get_config(method: str = "samm") -> Config:
    config = load(f"seq_vggsound:{method}")
    config.stream = StreamConfig(kind="domain", num_tasks=5,
                                 coarse="jaxmm/prepare/vggsound_mmcl.csv")
    return config
