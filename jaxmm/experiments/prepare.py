"""Prepares a data set, and describes the result."""
import jax

from jaxmm import escape, files
from jaxmm.errors import UserError, as_typed, check_at_least
from jaxmm.experiments import configs, folders
from jaxmm.prepare import run
from jaxmm.prepare.decode import Options
from jaxmm.prepare.run import describe_layout
from jaxmm.prepare.shards import Stopped
from jaxmm.signals import Preempted, stop_signals

__all__ = ("describe_layout", "options", "prepare")


def options(audio_rate: int, fps: float, short_side: int, variant: str) -> Options:
    """How files are decoded; raises UserError for numbers that are out of range."""
    for name, value, most in (("audio_rate", audio_rate, 10**6), ("fps", fps, 1000),
                              ("short_side", short_side, 10**5)):
        _check_range(name, value, most)
    return Options(audio_rate, fps, short_side, variant)


def prepare(dataset: str, source: str, output: str, decoding: Options, *, spectrograms_of: str,
            workers: int, allow_skipped: float, **how) -> str:
    """Prepares a data set; returns a description of its content.

    `spectrograms_of` names a config whose spectrograms are stored in place of sound. For the other
    arguments see `jaxmm.prepare.run.prepare`.

    Raises:
      UserError: invalid options or files.
      Preempted: a signal asked to stop.
    """
    folders.check_local("--output", output)
    _check_range("allow_skipped", allow_skipped, 1)
    _check_range("workers", workers, 1024)
    source, output = map(files.expand, (source, output))
    sections = None
    if spectrograms_of:
        try:
            sections = configs.load(spectrograms_of).data.preprocess
        except UserError as error:
            raise UserError(f"--spectrograms_of: {error}") from error
    jax.config.update("jax_platforms", "cpu")       # spectrograms need no accelerator
    try:
        with stop_signals() as stopped:
            summary = run.prepare(dataset, source, output, decoding, sections=sections, workers=workers,
                                  allow_skipped=allow_skipped, stopped=stopped, **how)
    except Stopped:
        raise Preempted("stopped; the same command resumes with what is left") from None
    said = run.describe(summary, output / summary["name"] / summary["version"])
    said = "\n".join(map(escape.printable, said.split("\n")))      # which has names of files
    if dataset not in configs.names():
        return said
    folder = output / summary["name"]
    # The config of a table is made of what the folder holds, so that it comes with the name.
    options = ([f"--config=table:mla,{folder}"] if dataset == "table" else
               [f"--config={dataset}", f"--config.data.path={folder}"])
    return f"{said}\nTo train on it:\n  {as_typed('train')} {escape.command(options)}"


def _check_range(name: str, value: float, most: float) -> None:
    check_at_least(f"--{name}", value, 0)
    if value > most:
        raise UserError(f"--{name}={value}; expected at most {most}")
