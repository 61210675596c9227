"""Builds prepared data sets from users' files, with one builder for each data set."""
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from jaxmm.prepare import (avmnist, cremad, food101, iemocap, kinetics400, kinetics_sounds,
                                modelnet40, mosi, mvsa, nyuv2, table, ucf101, vggsound)
from jaxmm.prepare.decode import Options
from jaxmm.prepare.layout import Layout


class Builder(NamedTuple):
    """How the files of one data set are found."""
    layout: Callable[[pathlib.Path, Options], Layout]
    variants: tuple[str, ...] = ()      # other splits or selections than the published one
    file: bool = False                  # its source is one file, not a folder


BUILDERS = {
    "avmnist": Builder(avmnist.layout),
    "cremad": Builder(cremad.layout, ("speakers",)),
    "food101": Builder(food101.layout),
    "iemocap": Builder(iemocap.layout),
    "kinetics400": Builder(kinetics400.layout),
    "kinetics_sounds": Builder(kinetics_sounds.layout),
    "modelnet40": Builder(modelnet40.layout),
    "mosei": Builder(mosi.layout, ("binary",)),
    "mosi": Builder(mosi.layout, ("binary",)),
    "mvsa": Builder(mvsa.layout),
    "nyuv2": Builder(nyuv2.layout, nyuv2.VARIANTS),
    "table": Builder(table.layout, table.VARIANTS, file=True),
    "ucf101": Builder(ucf101.layout, ("split2", "split3")),
    "vggsound": Builder(vggsound.layout, ("mmcl",)),
}
