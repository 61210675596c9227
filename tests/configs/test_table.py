"""The config of tables of files follows what was prepared."""
import pytest

from configs import table
from jaxmm.prepare.run import prepare_table


@pytest.mark.parametrize("longest, read, said", [(0.05, 0.1, False), (1.5, 1.5, False), (6.0, 5.0, True)])
def test_sound_is_as_long_as_the_longest_and_what_is_cut_is_said(longest, read, said, layouts, tmp_path, caplog):
    rows = []
    for i in range(4):
        layouts.write_wav(tmp_path / f"{i}.wav", seconds=longest / (4 - i), rate=1000, pitch=100 + i)
        rows.append({"split": ["train", "test"][i // 2], "label": "ab"[i % 2], "horn:sound": f"{i}.wav"})
    summary = prepare_table(rows, tmp_path, tmp_path, progress=False)
    assert summary["modalities"]["horn"]["seconds"] == pytest.approx(longest, abs=1e-3)
    config = table.get_config(f"late,{tmp_path}/table")
    assert config.data.preprocess["horn"].seconds == pytest.approx(read, abs=1e-3)
    assert (f"horn of up to {longest:g} s is cut to 5 s" in caplog.text) == said
