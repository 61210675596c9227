"""A page of examples of a segmentation: what goes in, the true classes, the predicted ones, and the errors."""
import pathlib
from collections.abc import Mapping, Sequence

import jax
import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.patches import Patch

from jaxmm import escape
from jaxmm.batch import Batch, batch_size, take
from jaxmm.config import scalar_options
from jaxmm.report import plots
from jaxmm.task import VOID
from jaxmm.train.scores import main_head
from jaxmm.train.setup import Run

NAME = "examples"       # of the plot
SHOWN = 6               # examples, at equal steps through the split
WRONG, RIGHT, NONE = "#000000", "#dfe3e8", "#ffffff"    # pixels that are predicted wrongly, rightly, void ones


def section(run: Run, split: Batch, workdir: pathlib.Path, page: plots.Page | None = None) -> str:
    """Text with the page of examples of a split, which is drawn into the folder; "" for methods without maps."""
    setup = run.setup
    method = setup.make_method(None, scalar_options(setup.config))
    if method.maps is None:
        return ""
    count = batch_size(split)
    rows = take(split, np.unique(np.linspace(0, count - 1, min(SHOWN, count)).astype(int)))
    maps = jax.device_get(jax.jit(method.maps)(setup.programs.fetch(run.state), setup.to_float32(rows)))
    head = main_head(maps)
    inputs = {m: np.asarray(rows["inputs"][m]) for m in setup.dataset.modalities if m in run.state.params}
    label = np.asarray(rows["inputs"][setup.dataset.target])

    def draw(**how) -> plots.Figure:
        return example_page(inputs, label, maps[head], setup.task.names, **how)

    wrong = (label != maps[head])[label != VOID].mean()
    return (f"\n\nExamples at equal steps through the split, as the head {escape.code(head)} sees them; "
            f"{100 * wrong:.1f}% of their pixels are wrong. Void pixels are white in the label and in the errors."
            f"\n\n![Inputs, label, prediction and error of some examples]({plots.save(workdir, NAME, draw, page)})")


@plots.styled
def example_page(inputs: Mapping[str, np.ndarray], label: np.ndarray, predicted: np.ndarray, names: Sequence[str], *,
                 page: plots.Page) -> plots.Figure:
    """A row of pictures for each of n examples, and the colours of the classes in them below.

    Args:
      inputs: images [n, H, W, C] or maps [n, H, W] by modality.
      label: class numbers int [n, H, W], VOID where there is none.
      predicted: class numbers int [n, H, W].
      names: of the classes.
      page: see `plots`.
    """
    titles = [*inputs, "label", "prediction", "error"]
    height, wanted = 1.5 * label.shape[1] / label.shape[2], 1.5 * len(titles) + 0.2     # inches on a screen
    width = page.fit(wanted)
    figure = plots.Figure(figsize=(width, (height * len(label) + 0.3) * width / wanted + 0.3))
    grid = figure.subplots(len(label), len(titles), squeeze=False)
    palette = class_colours(len(names))
    error = np.where(label == VOID, 2, label == predicted)
    pictures = [*map(shown, inputs.values()), palette[label], palette[predicted],
                colors.to_rgba_array([WRONG, RIGHT, NONE])[error]]
    for axes, title in zip(grid[0], titles):
        axes.set_title(escape.printable(title), fontsize=max(6, 12 * min(1, width / wanted)))
    for axes_row, row in zip(grid, zip(*pictures)):
        for axes, picture in zip(axes_row, row):
            axes.imshow(picture, cmap="viridis", interpolation="nearest")
            axes.set_axis_off()
    found = np.union1d(label[label != VOID], predicted)
    handles = [Patch(color=palette[c]) for c in found]
    plots.legend(figure, [*handles, Patch(color=WRONG)], [*(names[c] for c in found), "error"])
    return figure


def class_colours(count: int) -> np.ndarray:
    """Colours [C + 1, 4] by class number; the last one, which VOID points at, is white."""
    if count <= 20:
        found = matplotlib.colormaps["tab20"](np.r_[:20:2, 1:20:2][:count])      # the strong colours first
    else:           # hues at golden steps, each third of another brightness
        number = np.arange(count)
        hsv = np.stack([number * 0.618 % 1, 0.9 - 0.25 * (number % 2), 0.95 - 0.25 * (number % 3)], axis=1)
        found = np.concatenate([colors.hsv_to_rgb(hsv), np.ones((count, 1))], axis=1)
    return np.concatenate([found, [colors.to_rgba(NONE)]])


def shown(x: np.ndarray) -> np.ndarray:
    """Images [n, H, W, C] or maps [n, H, W] as they are drawn: bytes of three channels as colours, otherwise the
    mean over the channels, of which each picture has a scale of its own."""
    if x.ndim == 4 and x.shape[-1] == 3:
        low, high = (0, 255) if x.dtype == np.uint8 else (np.nanmin(x), np.nanmax(x))
        return (x.astype(np.float64) - low) / max(high - low, 1e-12)
    return x if x.ndim == 3 else x.mean(-1)
