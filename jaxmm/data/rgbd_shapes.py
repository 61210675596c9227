"""Rooms with boxes in colour and depth, with the class of every pixel: a made set for segmentation.

Pictures are 64 x 64 pixels: "rgb" uint8 and "depth" uint16, in mm, noisy both. A room is a wall and a
floor that comes nearer, grey, of another brightness and distance in each picture. In it lie four boxes
of different classes, later ones over earlier ones:

    class       colour              depth                           told apart by
    room        grey                wall and floor
    red         red                 that of the room behind         colour alone
    green       green               that of the room behind         colour alone
    raised      that of the room    0.4 m before the room           depth alone
    sunken      that of the room    0.4 m behind the room           depth alone
    match       yellow or violet    yellow 1.0 m before the room,   both together
                                    violet 1.8 m
    mismatch    yellow or violet    yellow 1.8 m, violet 1.0 m      both together

So colour alone takes `raised` and `sunken` for the room and guesses between `match` and `mismatch`; depth
alone takes `red` and `green` for the room, and guesses the same. One rectangle in each picture is void.
There are 240 pictures to train on, 60 of validation and 100 to test. All is drawn by `data.seed`; numbers
and colours were fixed before any method was run.
"""
import numpy as np

from jaxmm.batch import make_batch
from jaxmm.config import DataConfig
from jaxmm.data.dataset import Dataset, with_target
from jaxmm.task import VOID

TARGET = "classes"
CLASS_NAMES = ("room", "red", "green", "raised", "sunken", "match", "mismatch")
SIZES = {"train": 240, "val": 60, "test": 100}
SIDE = 64                       # pixels of a picture
BOXES = 4                       # in a picture
BOX = 12, 24                    # pixels of a side of a box, at least and at most
GAP = 4, 10                     # of the void rectangle
RED, GREEN, YELLOW, VIOLET = (190, 60, 60), (60, 170, 70), (200, 190, 60), (140, 70, 190)
LEVELS = {"raised": -400, "sunken": 400, "far": -1000, "near": -1800}     # mm from the room
COLOUR_NOISE, DEPTH_NOISE = 15, 40      # standard deviations, of 255 and in mm


def load(config: DataConfig) -> Dataset:
    """The data set; modalities are "rgb" uint8 [N, 64, 64, 3] and "depth" uint16 [N, 64, 64]."""
    rng = np.random.default_rng(config.seed)
    splits = {}
    for split, count in SIZES.items():
        pictures = [make_picture(rng) for _ in range(count)]
        inputs = {name: np.stack(x) for name, x in zip(("rgb", "depth", TARGET), zip(*pictures))}
        splits[split] = with_target(make_batch(inputs, np.zeros(count, np.int32)), TARGET)
    return Dataset("rgbd_shapes", splits, CLASS_NAMES, target=TARGET)


def make_picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rgb uint8 [H, W, 3], depth uint16 [H, W] in mm and classes int16 [H, W] of one room."""
    horizon, grey = rng.integers(SIDE // 2, SIDE - 8), rng.uniform(90, 160)
    below = np.maximum(np.arange(SIDE) - horizon, 0) / (SIDE - horizon)
    room = np.broadcast_to((rng.uniform(2800, 3400) - 500 * below)[:, None], (SIDE, SIDE))
    rgb, depth = np.full((SIDE, SIDE, 3), grey), room.copy()
    classes = np.zeros((SIDE, SIDE), np.int16)
    for number in 1 + rng.permutation(len(CLASS_NAMES) - 1)[:BOXES]:
        place, name = rectangle(rng, BOX), CLASS_NAMES[number]
        colour, offset = (grey,) * 3, LEVELS.get(name, 0)
        if name in ("red", "green"):
            colour = {"red": RED, "green": GREEN}[name]
        elif name in ("match", "mismatch"):
            violet = bool(rng.integers(2))
            colour = VIOLET if violet else YELLOW
            offset = LEVELS["near" if violet == (name == "match") else "far"]
        rgb[place], depth[place], classes[place] = colour, room[place] + offset, number
    classes[rectangle(rng, GAP)] = VOID
    rgb += rng.normal(0, COLOUR_NOISE, rgb.shape)
    depth += rng.normal(0, DEPTH_NOISE, depth.shape)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), np.rint(depth).astype(np.uint16), classes


def rectangle(rng: np.random.Generator, sides: tuple[int, int]) -> tuple[slice, slice]:
    """A rectangle at a random place of a picture, with sides of between two numbers of pixels."""
    lengths = rng.integers(sides[0], sides[1] + 1, 2)
    corner = rng.integers(0, SIDE - lengths + 1)
    rows, columns = (slice(start, start + length) for start, length in zip(corner, lengths))
    return rows, columns
