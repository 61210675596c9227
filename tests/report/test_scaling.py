from jaxmm.report import scaling

RESULTS = {
    "batch": {16: {"milliseconds_per_step": 1.5, "examples_per_second": 10667.0,
                   "compile_seconds": 2.0, "peak_memory_mib": 500},
              64: {"milliseconds_per_step": 3.0, "examples_per_second": 21333.0,
                   "compile_seconds": 2.5, "peak_memory_mib": 600}},
    "seeds": {1: {"milliseconds_per_step": 3.0, "examples_per_second": 21333.0,
                  "compile_seconds": 2.5, "peak_memory_mib": 600}}}


def test_table_and_files(tmp_path):
    table = scaling.write(RESULTS, ["a machine", "a workload"], tmp_path, "the command")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[0] == ["axis", "value", "ms / step", "examples / s", "compile s", "peak MiB"]
    assert rows[3] == ["batch", "64", "3.0", "21333.0", "2.5", "600"]
    assert [row[0] for row in rows[2:]] == ["batch", "batch", "seeds"]
    text = (tmp_path / "scaling.md").read_text()
    assert table in text and "- a machine\n- a workload\n" in text and "the command" in text


def test_curves_show_milliseconds_and_proportional_growth():
    batch, seeds = scaling.curves(RESULTS).axes
    proportional, measured = [line.get_ydata() for line in batch.lines]
    assert list(measured) == [1.5, 3.0] and list(proportional) == [1.5, 6.0]
    assert batch.get_xlabel() == "batch" and seeds.get_xlabel() == "seeds"
