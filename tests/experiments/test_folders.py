from types import SimpleNamespace

import pytest

from jaxmm import data
from jaxmm.config import DataConfig
from jaxmm.data import new_rows, streams, text
from jaxmm.errors import UserError
from jaxmm.experiments import bench, configs, evaluate, folders, prepare
from jaxmm.train import schedule, setup as setup_lib, teaching
from jaxmm.train.restore import restore
from jaxmm.train.weights import init_from


def prepare_from(path, make_config, make_dataset):
    prepare.prepare("cremad", path, "out", prepare.options(0, 0, 0, ""), spectrograms_of="", workers=1,
                    allow_skipped=0)


def be_taught(path, make_config, make_dataset):
    config = make_config("umt")
    config.method.teachers = f"{path}/{{teacher}}"
    teaching.check_teachers(setup_lib.build(config, dataset=make_dataset()))


# What takes a path, by the option that it comes from.
TAKERS = {
    "--workdir of evaluate": lambda path, *_: restore(folders.workdir(path, "")),
    "--reference": lambda path, *_: restore(path), "--config": lambda path, *_: configs.load(f"{path}.py"),
    "--config of options": lambda path, *_: configs.load(f"{path}.json:mla"),
    "--data of predict": lambda path, *_: list(
        new_rows.read_blocks(path, SimpleNamespace(forms={}), DataConfig(), 2)),
    "--predictions": lambda path, *_: evaluate.evaluate(path, None, "test", [], [], predictions=f"{path}/x.csv"),
    "--source": prepare_from,
    "data.path of arrays": lambda path, *_: data.load(DataConfig("arrays", f"{path}.npz")),
    "data.path of prepared data": lambda path, *_: data.load(DataConfig("cremad", path)),
    "vocabulary": lambda path, *_: text.read_tokenizer(path),
    "stream.coarse": lambda path, *_: streams.read_coarse_map(path, ["x"]),
    "method.teachers": be_taught,
    "train.init_from": lambda path, make_config, _: init_from(
        SimpleNamespace(config=make_config(init_from=path), _replace=lambda **changes: None), None),
}


@pytest.mark.parametrize("option", TAKERS)
def test_every_path_may_begin_in_the_home_folder(option, make_config, make_dataset, tmp_path, monkeypatch):
    """Where nothing is there, the message says where it was looked for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path}/none"):
        TAKERS[option]("~/none", make_config, make_dataset)
    assert not list(tmp_path.iterdir())
    bench.check(1.0, "~/times.json", False)     # whose folder is there


def test_a_run_made_from_python_lies_in_the_home_folder(make_config, make_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    schedule.train(make_config(epochs=1), "~/run", dataset=make_dataset(), progress=False)
    assert restore("~/run", dataset=make_dataset()).finished and (tmp_path / "run/config.json").exists()
