import pathlib
import resource

import chex
import jax
import numpy as np

from jaxmm.train import folder as folder_lib
from jaxmm.train.restore import restore

ARRAYS = str(pathlib.Path("configs/arrays.py").absolute())
DIGITS = str(pathlib.Path("configs/av_digits.py").absolute())


def write_npz(path, modalities=("sound", "image"), rows=96, **changes):
    rng = np.random.default_rng(0)
    content = {}
    for split in ("train", "test"):
        label = np.arange(rows) % 3
        content[f"{split}/label"] = label
        for m in modalities:
            content[f"{split}/{m}"] = (rng.normal(size=(rows, 4)) + label[:, None]).astype("f")
    np.savez(path, **content | changes)
    return str(path)


def test_bad_input_is_one_line_and_exit_code_2_with_nothing_written(tmp_path, launch):
    good = write_npz(tmp_path / "good.npz")
    damaged = pathlib.Path(write_npz(tmp_path / "damaged.npz"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    objects = write_npz(tmp_path / "objects.npz",
                        **{"train/sound": np.array([{}] * 96, dtype=object)})
    nan = write_npz(tmp_path / "nan.npz", **{"train/sound": np.full((96, 4), np.nan)})
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.tex").write_text("precious")
    workdir = tmp_path / "run"
    arrays = [f"--config={ARRAYS}:mla", f"--workdir={workdir}"]
    data = f"--config.data.path={good}"
    cases = {
        "missing.npz: no such file": [*arrays, "--config.data.path=missing.npz"],
        "data.path is empty": arrays,
        "damaged or cut short": [*arrays, f"--config.data.path={damaged}"],
        "pickled": [*arrays, f"--config.data.path={objects}"],
        "not finite": [*arrays, f"--config.data.path={nan}"],
        "method 'mlb' is unknown": [f"--config={ARRAYS}:mlb", f"--workdir={workdir}", data],
        "method.modality='smell'; expected one of image, sound": [f"--config={ARRAYS}:unimodal", f"--workdir={workdir}", data,
                                   "--config.method.modality=smell"],
        "encoders.smell: no such modality": [*arrays, data, "--config.encoders.smell.width=3"],
        "no option 'momentun'; did you mean momentum? Expected one of name, learning_rate, momentum": [*arrays, data, "--config.optimizer.momentun=0.5"],
        "no option 'beta'; expected one of name, modalities, projection": [*arrays, data, "--config.method.beta=2"],
        "bogus": [*arrays, data, "--bogus=1"],
        "'many'": [*arrays, data, "--config.train.epochs=many"],
        "'leftover'": [*arrays, data, "leftover"],
        "train.batch_size=128": [*arrays, data, "--config.train.batch_size=128"],
        "nowhere.py": ["--config=nowhere.py:mla", f"--workdir={workdir}"],
        "is not a run folder": [arrays[0], f"--workdir={occupied}", data],
        "typo/unimodal_image is not a run folder": [
            f"--config={ARRAYS}:umt", f"--workdir={workdir}", data,
            "--config.method.teachers=typo/{teacher}"],
        "File name too long": [arrays[0], f"--workdir={'long' * 100}", data],
        "expected all three: HOST:PORT": [*arrays, data, "--coordinator=localhost:port",
                                          "--num_processes=1", "--process_id=0"],
    }
    samm = [f"--config={ARRAYS}:samm", f"--workdir={workdir}", data, "--config.stream.kind=class",
            "--config.stream.num_tasks=3", "--config.method.capacity=64"]
    for option, expected in {       # sizes that are absurd, and numbers that are none
            "train.epochs=1000000000000": "train.epochs=1000000000000; expected at most 2147483647",
            "train.epochs=2000000000": "train.epochs=2000000000 makes",
            "train.batch_size=1000000000": "expected between 1 and the 86",
            "train.seeds=1000000": "train.seeds=1000000; expected at most 1000",
            "train.seed=2147483648": "train.seed=2147483648; expected at most",
            "optimizer.learning_rate=nan": "optimizer.learning_rate=nan; expected a finite number",
            "optimizer.clip_norm=1e400": "optimizer.clip_norm=inf; expected a finite number",
            "augment.sound.noise=nan": "augment.sound.noise=nan; expected a finite number",
            "encoders.sound.width=10000000": "encoders or method.capacity",
            "encoders.sound.depth=10000000": "encoders.sound.depth=10000000; expected at most 100",
            "method.capacity=1000000000000": "method.capacity=1000000000000; expected at most",
            "method.capacity=2000000000": "GiB, more than the ",
            "stream.num_tasks=1000000000": "1000000000 tasks cannot share 3 classes"}.items():
        cases[expected] = [*samm, f"--config.{option}"]
    cases["under a path with [;"] = [arrays[0], f"--workdir={tmp_path / 'a[b]'}", data]
    cases["gs://bucket/run; expected a folder of this machine"] = [
        arrays[0], "--workdir=gs://bucket/run", data]
    results = launch("launch.train", list(cases.values()))
    for expected, (code, out, err) in zip(cases, results):
        assert code == 2, (expected, out, err)
        assert err.startswith("error: ") and err.count("\n") == 1 and expected in err, err
        assert out == ""
    assert not workdir.exists() and not (tmp_path / "a[b]").exists()
    assert [p.name for p in occupied.iterdir()] == ["thesis.tex"]


def test_no_home_and_an_ascii_terminal(tmp_path, launch, monkeypatch):
    """Trains with names that the terminal has no characters for, and warns once of the cache."""
    (tmp_path / "file").touch()
    for variable, value in {"HOME": f"{tmp_path}/file", "JAXMM_CACHE": f"{tmp_path}/file/cache",
                            "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
                            "PYTHONIOENCODING": "ascii:strict"}.items():
        monkeypatch.setenv(variable, value)
    path = write_npz(tmp_path / "daten.npz", modalities=("größe", "image"),
                     class_names=np.array(["ä", "ö", "ü"]))
    workdir = tmp_path / "lauf 100%"
    (code, out, err), = launch("launch.train", [[
        f"--config={ARRAYS}:late", f"--config.data.path={path}", "--config.train.epochs=1",
        f"--workdir={workdir}"]])
    assert code == 0 and "Traceback" not in err, err
    assert "gr\\xf6\\xdfe" in out and out.isascii() and err.isascii()
    assert err.count("every start compiles again") == 1 and "UserWarning" not in err
    assert "größe" in (workdir / "report.md").read_text(encoding="utf-8")


def test_three_modalities_of_the_users_own(tmp_path, launch):
    """Trains and prints every head; the same command with another option is refused."""
    path = write_npz(tmp_path / "three.npz", modalities=("sound", "image", "flow"))
    workdir = tmp_path / "run"
    command = [f"--config={ARRAYS}:mla", f"--workdir={workdir}", f"--config.data.path={path}",
               "--config.train.epochs=2",
               "--config.encoders.flow.depth=1"]
    other = [*command, "--config.method.alpha=0.7"]
    (code, out, err), (refused, _, message) = launch("launch.train", [command, other])
    assert code == 0, err
    for head in ("sound", "image", "flow", "fused"):
        assert head in out
    assert refused == 2 and "method.alpha was 0.1, is 0.7" in message
    assert (workdir / "report.md").exists()


def test_a_folder_in_use_is_refused_and_a_full_disk_has_its_own_code(tmp_path, launch, monkeypatch):
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path))     # compiled programs are cut short too
    data = write_npz(tmp_path / "data.npz")
    command = [f"--config={ARRAYS}:concat", f"--config.data.path={data}",
               "--config.train.epochs=1", f"--workdir={tmp_path / 'run'}"]
    (tmp_path / "run").mkdir()
    with folder_lib.lock(tmp_path / "run"):
        (code, _, err), = launch("launch.train", [command])
    assert code == 2 and err.count("\n") == 1 and "run is in use by process" in err
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["lock"]

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)      # which processes inherit
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        (code, _, err), = launch("launch.train", [command])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 74 and "Traceback" not in err
    assert err.endswith("checkpoint of step 1 could not be written (File too large); there is none "
                        "before it; free some space, and the same command resumes\n")
    assert not any((tmp_path / "run" / "checkpoints").iterdir())


def test_a_run_goes_on_and_another_starts_from_it(tmp_path, launch, monkeypatch):
    """The second one learns at the rate 0, and so is the first one. Folders are named from the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    options = [f"--config={ARRAYS}:concat", "--config.data.path=~/good.npz", "--workdir=~/one",
               "--config.optimizer.schedule=cosine", "--config.data.placement=device"]
    write_npz(tmp_path / "good.npz")
    first, longer, other = [*options, "--config.train.epochs=1"], [*options, "--config.train.epochs=2"], [
        *options, "--workdir=~/other", "--init_from=~/one", "--config.train.epochs=1",
        "--config.optimizer.learning_rate=0"]
    done = launch("launch.train", [first, longer, [*longer, "--extend"], other, [*other, "--init_from=~/none"],
                                   [*longer, "--extend", "--config.train.seeds=2", "--workdir=~/seeds"]])
    assert [code for code, _, _ in done] == [0, 2, 0, 0, 2, 2], done
    (_, out, _), (_, _, refused), _, _, (_, _, changed), (_, _, several) = done
    assert "give --extend" in refused and "train.init_from was '~/one', is '~/none'" in changed
    assert "--extend is for one run" in several
    assert f"{tmp_path}/one/report.md shows it" in out and out.endswith(
        f"  python -m launch.evaluate --workdir={tmp_path}/one\n"
        f"  python -m launch.predict --workdir={tmp_path}/one --data=NEW.npz --output=predictions.csv\n")
    runs = [restore(tmp_path / name, devices=jax.devices()[:1]) for name in ("one", "other")]
    one, other = (run.setup.programs.fetch(run.state) for run in runs)
    chex.assert_trees_all_equal(one.params, other.params)
    assert one.step == 2 * other.step and one.params["head"]["kernel"]["sound"].any()
    shown = (tmp_path / "one/report.md").read_text()
    assert f"    python -m launch.evaluate --workdir={tmp_path}/one\n" in shown


def test_help_says_how_to_start(tmp_path, launch):
    (_, out, _), = launch("launch.train", [["--help"]])
    for expected in ("python -m launch.train", "--workdir", "--config", "FILE.py:METHOD"):
        assert expected in out
