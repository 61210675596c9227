"""Small real files in the layouts that users have on disk. Tests get this module as `layouts`.

Every function writes one data set under a folder and returns nothing or what it drew. Colours and
tones are set by the example, so that a test knows what belongs to whom.
"""
import pathlib

import av
import numpy as np
import soundfile
from PIL import Image

RATE = 16000        # Hz, of sound made here


def tone(seconds=0.25, rate=RATE, channels=1, pitch=440.0):
    """A sine wave, float32 [T, channels]."""
    wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def write_wav(path, seconds=0.25, rate=RATE, channels=1, pitch=440.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, rate, channels, pitch), rate, subtype="PCM_16")


def write_image(path, colour=(200, 30, 30), size=(24, 16)):
    """One colour, as JPEG or PNG by the suffix; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "RGB" if isinstance(colour, tuple) else "L"
    Image.new(mode, size, colour).save(path)


def write_frames(folder, count=3, pattern="{:05d}.jpg", size=(24, 16)):
    """Frames 1 to `count`, each a darker red than the one before."""
    for i in range(1, count + 1):
        write_image(folder / pattern.format(i), (250 - 20 * i, 10, 10), size)


def write_video(path, seconds=1.0, fps=8, rate=RATE, sound=True, size=(32, 16)):
    """A video whose red grows with time, with a tone as its sound: mp4, avi or flv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = int(seconds * fps)
    with av.open(str(path), "w") as container:
        video = container.add_stream("flv" if path.suffix == ".flv" else "mpeg4", rate=fps)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        if sound:
            audio = container.add_stream("mp3" if path.suffix == ".flv" else "aac",
                                         rate=22050 if path.suffix == ".flv" else rate)
            audio.layout = "mono"
        for i in range(count):
            image = np.zeros((size[1], size[0], 3), np.uint8)
            image[..., 0] = 255 * i // max(count - 1, 1)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        if sound:
            samples = tone(seconds, audio.rate).T
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", "mono")
            frame.sample_rate = audio.rate
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def write_lines(path, lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))


def cremad(root, actors=4, raw=False):
    """Six clips for each actor, one of each emotion; the last actor is in test.

    With `raw` there are only videos, otherwise wav files and folders of three frames.
    """
    root = pathlib.Path(root)
    rows = {"train": [], "test": []}
    for actor in range(1001, 1001 + actors):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            name = f"{actor}_DFA_{emotion}_XX"
            rows["test" if actor == 1000 + actors else "train"].append(f"{name},{emotion}")
            if raw:
                write_video(root / "VideoFlash" / f"{name}.flv", seconds=2.0, fps=5)
            else:
                write_wav(root / "AudioWAV" / f"{name}.wav", pitch=200.0 + actor % 1000)
                write_frames(root / "Image-01-FPS" / name)
    write_lines(root / "train.csv", rows["train"])
    write_lines(root / "test.csv", rows["test"], "utf-8-sig")
