"""Sound and pictures of video files, on one time line: second 0 is when the first stream starts.

Start times, gaps, orientation and pixel shape of the container are respected; the notes name what is
not.
"""
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from jaxmm import extras

av = extras.Later("av", "reading videos")

# Only containers of video: others, such as play lists, could open files of their choice.
CONTAINERS = "mov,matroska,avi,flv,mpeg,mpegts,asf,ogg"
LONGEST_GAP = 60            # s between two frames, or without sound
JITTER = 0.05               # s; tolerance of times of sound, which some containers round
HDR = (16, 18)              # transfer characteristics of PQ and HLG
TURNS = {                   # a, b, c, d of a display matrix, which takes (x, y) to (ax + cy, bx + dy)
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT, (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180, (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE, (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270}


def pictures(path: str, fps: float, notes: list[str]) -> Iterator[tuple[Image.Image, int]]:
    """Frames of a video, RGB, upright, with square pixels; each with the number of times to take it.

    Args:
      fps: frames per second: frame k is the first one at or after k / fps seconds, so the first one is
        repeated if the sound starts earlier. 0: all frames, once.
      notes: is extended by what was changed, and what is not respected.

    Raises:
      Any exception: the file is damaged, or without frames for more than LONGEST_GAP.
    """
    with _open(path) as container:
        streams = _streams(container, "video")
        if not streams:
            raise ValueError("no video stream")
        stream, taken = _default(streams, notes), 0
        origin, rate = _origin(container), float(stream.average_rate or 1)
        for number, frame in enumerate(container.decode(stream)):
            seconds = number / rate if frame.time is None else frame.time - origin
            count = math.floor(seconds * fps + 1e-6) + 1 - taken if fps else 1
            if count > fps * LONGEST_GAP + 1:
                raise ValueError(f"no frames for more than {LONGEST_GAP} s")
            if count > 0:
                if count > 1 and not taken:
                    notes.append("first frame repeated, as the sound starts earlier")
                taken += count
                yield _upright(frame, stream.sample_aspect_ratio, notes), count


def samples(path: str, notes: list[str]) -> tuple[np.ndarray, int] | None:
    """The sound of a video, float32 [T, channels] in [-1, 1], and its rate in Hz; or None.

    It begins with silence if the pictures start earlier, and gaps in it are silence.
    """
    with _open(path) as container:
        streams = _streams(container, "audio")
        if not streams:
            if _streams(container, "video"):
                return None
            raise ValueError("neither sound nor video")
        stream, origin = _default(streams, notes), _origin(container)
        resampler = av.AudioResampler(format="fltp")        # of the rate and layout that they have
        parts, length, rate = [], 0, 0
        for frame in container.decode(stream):
            rate = rate or frame.sample_rate
            start = length / rate if frame.time is None else frame.time - origin
            late = start - length / rate
            if late > LONGEST_GAP:
                raise ValueError(f"no sound for more than {LONGEST_GAP} s")
            if late < -JITTER:
                notes.append("sound whose times go back, taken as it comes")
                origin += late
            elif late > (JITTER if parts else 0) and (silence := round(late * rate)):
                if late > JITTER:
                    notes.append("silence where the sound has a gap" if parts else
                                 "silence before the sound, which starts later than the pictures")
                parts.append(np.zeros((len(frame.layout.channels), silence), np.float32))
                length += silence
            found = [part.to_ndarray() for part in resampler.resample(frame)]
            parts, length = parts + found, length + sum(part.shape[1] for part in found)
        parts += [part.to_ndarray() for part in resampler.resample(None)]
    if not parts:
        raise ValueError("no samples")
    return np.concatenate(parts, axis=1).T, rate


@contextmanager
def _open(path: str):
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    with av.open(path, options=options) as container:
        yield container


def _streams(container, kind: str) -> list:
    """The streams of sound or video, without cover pictures."""
    return [stream for stream in getattr(container.streams, kind)
            if not stream.disposition & av.stream.Disposition.attached_pic]


def _default(streams: list, notes: list[str]):
    """The stream that players choose."""
    if len(streams) > 1:
        notes.append(f"one of several {streams[0].type} streams")
    return next((s for s in streams if s.disposition & av.stream.Disposition.default), streams[0])


def _origin(container) -> float:
    """When the first stream starts, in seconds of the container."""
    starts = [float(stream.start_time * stream.time_base)
              for kind in ("audio", "video") for stream in _streams(container, kind)
              if stream.start_time is not None]
    return min(starts, default=0.0)


def _upright(frame: "av.VideoFrame", pixel, notes: list[str]) -> Image.Image:
    """The frame upright and with square pixels; `pixel` is the width of its pixels over their height."""
    if frame.is_corrupt:
        notes.append("damaged frames")
    if frame.interlaced_frame:
        notes.append("interlaced frames, as they are")
    if frame.color_trc in HDR:
        notes.append("HDR colours, not mapped to sRGB")
    image = frame.to_image()
    if pixel and pixel > 0 and pixel != 1:
        wider = float(pixel)
        size = max(wider, 1) * image.width, max(1 / wider, 1) * image.height
        if max(size) > 2**14:
            raise ValueError(f"pixels {wider:g} times as wide as high")
        image = image.resize(tuple(map(round, size)), Image.Resampling.BILINEAR)
        notes.append("made to square pixels")
    turn = TURNS[1, 0, 0, 1]
    for data in frame.side_data:
        if data.type == av.sidedata.sidedata.Type.DISPLAYMATRIX:
            turn = _turn(np.frombuffer(bytes(data), np.int32))
    if turn is not None:
        image = image.transpose(turn)
        notes.append("turned upright")
    return image


def _turn(matrix: np.ndarray) -> Image.Transpose | None:
    """How to transpose an image for a display matrix, int32 [9] in 16.16 fixed point."""
    part = matrix[[0, 1, 3, 4]] / max(np.abs(matrix[[0, 1, 3, 4]]).max(), 1)
    key = tuple(int(x) for x in np.rint(part))
    if key not in TURNS or not np.allclose(part, key, atol=0.01):
        degrees = math.degrees(math.atan2(-part[1], part[0]))
        raise ValueError(f"frames to be turned by {degrees:.0f} degrees; expected a multiple of 90")
    return TURNS[key]
