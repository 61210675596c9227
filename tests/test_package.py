"""What is installed."""
import pathlib
import subprocess
import sys

import jaxmm

ROOT = pathlib.Path(jaxmm.__file__).parents[1]


def test_one_name_is_installed_with_all_modules_configs_and_data(tmp_path):
    """`launch` and `configs` are names of others."""
    subprocess.run([sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build",
                    f"--build-base={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["jaxmm"]
    built = {str(p.relative_to(tmp_path / "lib")) for p in (tmp_path / "lib").rglob("*") if p.is_file()}
    here = {str(p.relative_to(ROOT)) for p in (ROOT / "jaxmm").rglob("*")
            if p.suffix in (".py", ".csv", ".npz")}
    configs = {f"jaxmm/configs/{p.name}" for p in (ROOT / "configs").glob("*") if p.suffix in (".py", ".csv")}
    assert built == here | configs
