"""Checks and names of output folders."""
import pathlib
import re

from jaxmm import files
from jaxmm.config import Config
from jaxmm.errors import UserError, as_typed


def workdir(value: str, default: str) -> pathlib.Path:
    """The run folder of --workdir, or `default` under runs/.

    Raises:
      UserError: it is an address of another machine, or its name has {teacher} or {seed}, which are
        placeholders in the folders of teachers.
    """
    check_local("--workdir", value)
    for name in ("{teacher}", "{seed}"):
        if name in value:
            raise UserError(f"--workdir={value}: {name} stands for those of teachers; choose another "
                            "name")
    return files.expand(value) if value else pathlib.Path("runs") / default


def trained(value: str, default: str) -> pathlib.Path:
    """The run folder of --workdir, or `default` under runs/, which has to be there then."""
    folder = workdir(value, default)
    if not value and not folder.exists():
        raise UserError(f"{folder} does not exist; train first: {as_typed('train')}; or name a run folder by "
                        "--workdir")
    return folder


def check_local(option: str, value: str) -> None:
    """Raises UserError if a folder to write to is the address of something elsewhere."""
    if re.match(r"[\w+.-]+://", value):
        raise UserError(f"{option}={value}; expected a folder of this machine: mount what is "
                        "elsewhere, or copy the result there when it is done")


def data_name(config: Config) -> str:
    """The name of a run's data, as part of the names of folders."""
    return "_".join(filter(None, [config.data.name, config.data.kind, config.stream.kind]))
