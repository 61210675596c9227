"""Small real files in the layouts that users have on disk. Tests get this module as `layouts`.

Every function named after a data set writes it under a folder and returns what is in it,
{key: (split, class)}; `classes` and `clips` (of every class and split) set its size.
"""
import json
import pathlib
import types

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
    """One colour but for a black corner, as JPEG or PNG by the suffix; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB" if isinstance(colour, tuple) else "L", size, colour)
    image.putpixel((0, 0), 0)
    image.save(path)


def write_frames(folder, count=3, pattern="{:05d}.jpg", size=(24, 16)):
    """Frames 1 to `count`, each a darker red than the one before."""
    for i in range(1, count + 1):
        write_image(folder / pattern.format(i), (250 - 20 * i, 10, 10), size)


def write_video(path, seconds=1.0, fps=8, rate=RATE, sound=True, size=(32, 16), slope=0):
    """A video whose red grows with time, its green by `slope` to the right, and a tone as its sound: mp4, avi or flv."""
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
            image[..., 1] = slope * np.arange(size[0])
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
    """A clip of every emotion for each actor; the last actor is in test.

    With `raw` there are only videos, otherwise wav files and folders of three frames.
    """
    root, content = pathlib.Path(root), {}
    for actor in range(1001, 1001 + actors):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            name = f"{actor}_DFA_{emotion}_XX"
            content[name] = "test" if actor == 1000 + actors else "train", emotion
            if raw:
                write_video(root / "VideoFlash" / f"{name}.flv", seconds=2.0, fps=5)
            else:
                write_wav(root / "AudioWAV" / f"{name}.wav", pitch=200.0 + actor % 1000)
                write_frames(root / "Image-01-FPS" / name)
    write_lines(root / "train.csv", _rows(content, "train", "{key},{label}"))
    write_lines(root / "test.csv", _rows(content, "test", "{key},{label}"), "utf-8-sig")
    return content


def kinetics_sounds(root, classes=("bowling", "playing guitar"), clips=2, audio="wav"):
    """`audio`: "wav", "npy" for filterbanks [20, 8], or "mp4" for videos alone."""
    root, content = pathlib.Path(root), _content(classes, clips, "yt_{i:03d}")
    for i, name in enumerate(content):
        if audio == "mp4":
            write_video(root / "video" / f"{name}.mp4", seconds=2.0, fps=4)
            continue
        write_frames(root / "visual" / name, pattern="frame_{:05d}.jpg")
        if audio == "wav":
            write_wav(root / "audio" / f"{name}.wav")
        else:
            (root / "audio").mkdir(exist_ok=True)
            np.save(root / "audio" / f"{name}.npy", np.full((20, 8), i, np.float32))
    for split in ("train", "test"):
        write_lines(root / f"{split}.txt", _rows(content, split, "{key}.mp4 {label}"))
    return content


def vggsound(root, classes=("dog barking", "pigeon, dove cooing"), clips=2, raw=False, frames=5):
    root, content, rows = pathlib.Path(root), {}, []
    for split, label, i in _each(classes, clips):
        ytid, start = f"yt-{i:04d}", 30 + i
        name = f"{ytid}_{start:06d}"
        content[name] = split, label
        rows.append(f'{ytid},{start},"{label}",{split}')
        if raw:
            write_video(root / f"{name}.mp4", seconds=5.0, fps=2)
        else:
            write_wav(root / "audio" / f"{name}.wav", channels=2, rate=44100)
            # The three names that a folder of frames may have.
            folder = (f"{name}.mp4", name, f"{ytid}_{start}")[i % 3]
            write_frames(root / "images/Image-01-FPS" / folder, frames)
    write_lines(root / "vggsound.csv", rows)
    return content


def kinetics400(root, classes=("abseiling", "air drumming"), clips=2, lists=False):
    """With `lists`, names and places of the videos as in the published lists."""
    root, content, rows = pathlib.Path(root), {}, {"train": [], "test": []}
    for split, label, i in _each(classes, clips):
        folder = root / ("train" if split == "train" else "val")
        name = f"yt{i:04d}_{10:06d}_{20:06d}" if lists else f"clip{i:04d}"
        content[name if lists else f"{folder.name}/{label}/{name}"] = split, label
        word = "train" if split == "train" else "validate"
        rows[split].append(f"{label},yt{i:04d},10,20,{word}")
        write_video((folder if lists else folder / label) / f"{name}.mp4", fps=10)
    if lists:
        header = "label,youtube_id,time_start,time_end,split"
        write_lines(root / "train.csv", [header, *rows["train"]])
        write_lines(root / "val.csv", [header, *rows["test"]])
    return content


def ucf101(root, classes=("YoYo", "Archery"), clips=2, raw=False, flow=("flow_u", "flow_v")):
    """Classes are numbered as given, not by name."""
    root, content = pathlib.Path(root), {}
    for split, label, i in _each(classes, clips):
        name = f"v_{label}_g{i:02d}_c01"
        content[f"{label}/{name}"] = split, label
        if raw:
            write_video(root / label / f"{name}.avi", fps=5, sound=False)
            continue
        write_frames(root / "visual" / name, 4, "frame{:06d}.jpg")
        for folder, grey in zip(flow, (100, 200)):
            for k in range(1, 11):
                write_image(root / folder / name / f"frame{k:06d}.jpg", grey + k)
    write_lines(root / "classInd.txt", [f"{i} {c}" for i, c in enumerate(classes, 1)])
    for number in (1, 2, 3):
        write_lines(root / f"trainlist0{number}.txt", [
            f"{key}.avi {classes.index(label) + 1}"
            for key, (split, label) in content.items() if split == "train"])
        write_lines(root / f"testlist0{number}.txt",
                    _rows(content, "test", "{key}.avi"))
    return content


def modelnet40(root, classes=("bed", "airplane"), clips=2, suffix="png"):
    """View n of a shape is a grey of 10 * n."""
    root, content = pathlib.Path(root), {}
    for split, label, i in _each(classes, clips):
        name = f"{label}_{i:04d}"
        content[f"{label}/{split}/{name}"] = split, label
        for view in range(1, 13):
            write_image(root / label / split / f"{name}.obj.shaded_v{view:03d}.{suffix}", 10 * view)
    return content


def food101(root, classes=("apple_pie", "baklava"), clips=2, jsonl=False):
    root, content, rows = pathlib.Path(root), {}, {"train": [], "test": []}
    for split, label, i in _each(classes, clips):
        name = f"{label}_{i}"
        content[name if jsonl else f"{split}/{label}/{name}"] = split, label
        image = root / "images" / split / label / f"{name}.jpg"
        write_image(image, (10 * i, 90, 90))
        rows[split].append(json.dumps({
            "id": name, "label": label, "text": f'the "best" {label}, {i}',
            "img": str(image.relative_to(root))}) if jsonl else
            f'{name}.jpg,"the ""best"" {label}, {i}",{label}')
    for split, lines in rows.items():
        if jsonl:
            write_lines(root / f"{split}.jsonl", lines)
        else:
            write_lines(root / "texts" / f"{split}_titles.csv", lines)
    return content


def mvsa(root, clips=2, jsonl=False):
    """`clips` tweets of every label and split; of `labelResult.txt` the splits are not known."""
    root, content, rows = pathlib.Path(root), {}, {"train": [], "dev": [], "test": []}
    pairs = {"positive": "positive,neutral", "neutral": "neutral,neutral",
             "negative": "neutral,negative"}
    for split, label, i in _each(tuple(pairs), clips, tuple(rows)):
        content[str(i + 1)] = "val" if split == "dev" else split, label
        write_image(root / "data" / f"{i + 1}.jpg", (10 * i, 50, 50))
        text = f"{label} day no. {i + 1} \u2600"
        write_lines(root / "data" / f"{i + 1}.txt", [text])
        rows[split].append(json.dumps({"id": str(i + 1), "label": label, "text": text,
                                       "img": f"{i + 1}.jpg"}))
    if jsonl:
        for split, lines in rows.items():
            write_lines(root / f"{split}.jsonl", lines)
    else:
        write_lines(root / "labelResult.txt", ["ID\ttext,image"] + [
            f"{key}\t{pairs[label]}" for key, (_, label) in content.items()])
    return content


def iemocap(root, clips=2, text=False):
    """With `text`, lists in the form with [split|sign]."""
    root, content = pathlib.Path(root), {}
    words = ("ang", "exc", "neu", "sad")
    for split, word, i in _each(words, clips):
        name = f"Ses01F_impro01_F{i:03d}"
        content[name] = split, "hap" if word == "exc" else word
        write_wav(root / "audio" / f"{name}.wav")
        write_frames(root / "visual" / name, 2)
    for split in ("train", "test"):
        form = ("{key}.mp4 [split|sign] Well, {key}. [split|sign] {label}" if text else
                '{key},"Well, {key}.",{label}')
        write_lines(root / f"{split}.{'txt' if text else 'csv'}", _rows(content, split, form))
    return content


def iemocap_features(root, clips=4, shapes=types.MappingProxyType(
        {"audio": (12,), "visual": (10,), "text": (8,)})):
    """`clips` examples of each of four classes in each split."""
    root, rng, arrays, content = pathlib.Path(root), np.random.default_rng(0), {}, {}
    for split in ("train", "test"):
        label = np.arange(4 * clips) % 4
        arrays[f"{split}/label"] = label
        for m, shape in shapes.items():
            noise = rng.normal(size=(len(label), *shape))
            arrays[f"{split}/{m}"] = (label.reshape(-1, *len(shape) * [1]) + noise).astype("f4")
        names = ("ang", "hap", "neu", "sad")
        content |= {f"{split}_{i:06d}": (split, names[c]) for i, c in enumerate(label)}
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "iemocap.npz", **arrays)
    return content


def mosi(root, clips=4, steps=5):
    """Sequences of features; `clips` examples of each sign in each split, and a neutral one.

    Their content is the sentiment.
    """
    root, rng, arrays, content = pathlib.Path(root), np.random.default_rng(0), {}, {}
    for split in ("train", "valid", "test"):
        label = np.array([-1.4, 2.2] * clips + [0.0], np.float32)
        arrays[f"{split}/labels"] = label[:, None, None]
        arrays[f"{split}/id"] = np.array([[f"{split}vid", str(i)] for i in range(len(label))])
        for m, size in (("vision", 6), ("audio", 4), ("text", 8)):
            noise = rng.normal(size=(len(label), steps, size))
            arrays[f"{split}/{m}"] = (label[:, None, None] + noise).astype("f4")
        arrays[f"{split}/audio"][0, 0, 0] = -np.inf
        content |= {f"{split}vid_{i}": ("val" if split == "valid" else split, [x])
                    for i, x in enumerate(label)}
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "mosi.npz", **arrays)
    return content


def nyuv2(root, rooms=2):
    """Room i, of 24 x 16 pixels, is 1000 + i mm away, raw 2000 + i, and of class i + 1 but for a void corner."""
    root, content = pathlib.Path(root), {}
    for i in range(2 * rooms):
        split = ("train", "test")[i % 2]
        content[f"{split}_{i:04d}"] = split, None
        write_image(root / split / "rgb" / f"{i:04d}.png", (10 * i, 40, 40))
        for folder, value, kind in (("depth", 1000 + i, np.uint16), ("depth_raw", 2000 + i, np.uint16),
                                    ("labels_40", i + 1, np.uint8)):
            values = np.full((16, 24), value, kind)
            values[:4, :4] = 0 if folder == "labels_40" else value
            write_map(root / split / folder / f"{i:04d}.png", values)
    return content


def write_map(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _each(classes, clips, splits=("train", "test")):
    """(split, class, number) of every clip, numbered across all of them."""
    number = 0
    for split in splits:
        for _ in range(clips):
            for label in classes:
                yield split, label, number
                number += 1


def _content(classes, clips, name):
    return {name.format(i=i): (split, label) for split, label, i in _each(classes, clips)}


def _rows(content, split, form):
    return [form.format(key=key, label=label) for key, (s, label) in content.items() if s == split]
