"""The command line of launch.predict."""


def test_what_is_missing_is_said_in_one_line(launch, tmp_path):
    (tmp_path / "streams/run").mkdir(parents=True)
    given = ["--workdir=run", "--data=new.npz", "--output=o.csv"]
    found = launch("launch.predict", [given[1:], given[:1] + given[2:], given[:2], given])
    for (code, out, err), said in zip(found, ["--workdir is missing", "--data is missing",
                                              "--output is missing", "run is not a run folder"]):
        assert (code, out) == (2, "") and err.startswith(f"error: {said}") and err.count("\n") == 1
