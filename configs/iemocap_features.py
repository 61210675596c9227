r"""IEMOCAP features with missing modalities, as MLA (arXiv 2311.10707, section 4.2) trains on them.

Precomputed vectors (audio 512, visual 1024, text 1024: wav2vec-large, MANet and DeBERTa-large of GCNet,
arXiv 2203.02177), three dense layers of 128 units for each, batches of 64, learning rate 1e-3. The paper
reduces that "in every iteration by 0.1", which cannot be, and names no optimizer: Adam here, for all methods.
The same rate of modalities is missing in training, validation and test; one is kept at least, and the masks
stay for the run. They are drawn as in the released code (`data.missing_scheme=exact`): the rate is the share
of all that are missing, so that from 0.67 on one modality is left of each example. By the paper's text each
modality is missing independently, which leaves more: --config.data.missing_scheme=independent, for which
published values are starred.

    python -m launch.prepare --dataset=iemocap --source=DIR --output=data
    python -m launch.train --config=configs/iemocap_features.py:mla --config.data.missing_rate=0.5
    python -m launch.compare --config=configs/iemocap_features.py --methods=late,qmf,mla --seeds=3 \
        --missing_rates=0.1,0.2,0.3,0.4,0.5,0.6,0.7

To take one modality away in training alone (figure 2):

    python -m launch.compare --config=configs/iemocap_features.py --methods=mla --seeds=3 \
        --missing_modality=audio --missing_rates=0,0.3,0.6,0.9

Hyper-parameters are chosen on validation accuracy, once for a method at the rate 0.3. Reports have weighted
F1 and mean recall ("unweighted accuracy") beside accuracy. `iemocap_features.py:mla,smoke` is a size for
smoke tests.

Published accuracy, fused, by the rate of missing modalities (table 2), in percent. The rows may not
be of one experiment: those of AE, CRA and MMIN are multiples of 0.02, as means of five folds are, and no
others are. So small gaps say little.

    method         0.1    0.2    0.3    0.4    0.5    0.6    0.7
    late          73.0   69.1   64.9   61.1   56.5   52.4   45.1
    qmf           73.5   71.3   65.9   62.3   57.9   55.6   50.2
    cca           65.2   62.6   59.4   55.2   51.4   45.7   30.6
    dcca          57.2   51.7   42.5   36.5   34.8   33.6   41.1
    dccae         61.7   57.7   55.0   51.1   45.7   39.1   41.4
    ae            71.4   67.4   62.0   57.2   50.6   43.0   39.9
    cra           71.3   67.3   62.2   57.0   49.9   43.2   38.6
    mmin          71.8   69.4   66.3   63.3   60.5   57.5   55.4
    if_mmin       71.3   68.3   64.2   60.1   57.5   53.3   52.0
    cpm_net       55.3   53.6   52.5   51.0   49.1   47.4   44.8
    tate          67.8   63.2   62.2   60.4   58.7   58.0   54.4
    mla           75.1   72.3   68.5   67.0   63.5   59.2   55.9
"""
from jaxmm.experiments.presets import make_config, on_features, shrink
from jaxmm.config import Config, DataConfig


def get_config(argument: str = "mla") -> Config:
    config, smoke = make_config(argument)
    config.data = DataConfig(name="iemocap", path="data/iemocap", missing_rate=0.1, missing_scheme="exact")
    config = on_features(config, ("audio", "text", "visual"))
    return shrink(config) if smoke else config
