"""What made a run: versions, commit, machine, date."""
import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

import jaxmm


def describe() -> dict[str, Any]:
    """As JSON: versions by package, commit ("" outside a checkout), devices, host, date (UTC)."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "versions": {"jaxmm": jaxmm.__version__, "python": platform.python_version(),
                     **{name: importlib.metadata.version(name) for name in packages}},
        "commit": commit(),
        "device": f"{jax.device_count()} x {device.platform} {device.device_kind}",
        "host": f"{platform.platform()} {os.cpu_count()} cores",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def commit() -> str:
    """The commit of the checkout this package lies in, "-dirty" where files differ; "" if it is none.

    A package that is installed below some other checkout is not tracked by it.
    """
    def git(*arguments):
        return subprocess.run(["git", "-C", pathlib.Path(__file__).parent, *arguments], check=True,
                              capture_output=True, text=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", pathlib.Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""
