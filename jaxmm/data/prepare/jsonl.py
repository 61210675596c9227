"""Pictures with text, listed in JSON lines: {train,dev,test}.jsonl with id, label, text, img."""
import pathlib

from jaxmm.data.prepare import decode
from jaxmm.data.prepare.decode import Source
from jaxmm.data.prepare.layout import Example, Modality, read_jsonl, split_lists

MODALITIES = {"text": Modality("text"), "visual": Modality("frames")}
FOLDERS = ("", "images", "data")        # where the path of a picture may start


def examples(source: pathlib.Path) -> list[Example]:
    """What the lists have; nothing where there is no train.jsonl."""
    if not (source / "train.jsonl").exists():
        return []
    entries = []
    for split, path in split_lists(source, [".jsonl"]).items():
        for row in read_jsonl(path, ["id", "label", "text", "img"]):
            files = [source / folder / str(row["img"]) for folder in FOLDERS]
            file = next((file for file in files if file.exists()), files[0])
            entries.append(Example(str(row["id"]), split, str(row["label"]), {
                "text": Source(decode.given, (str(row["text"]),)),
                "visual": Source(decode.images, ((str(file),),))}))
    return entries
