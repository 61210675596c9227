"""Several methods over the values of one option, compared."""
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmm import data
from jaxmm.config import Config, replace
from jaxmm.data.streams import make_stream
from jaxmm.errors import UserError, suggest
from jaxmm.experiments import configs, folders
from jaxmm.experiments.compare import finish_over, make_over, methods_of
from jaxmm.experiments.configs import Chosen
from jaxmm.report import plots, variants
from jaxmm.report import vary as report
from jaxmm.report.missing import name
from jaxmm.train.options import MOST, check_counts

READABLE = (bool, int, float, str)      # types of options that can be varied
OF_RUNS = ("train.seed", "train.seeds", "stream.seed", "stream.kind", "data.folds", "data.fold")
# what tells seeds, folds or kinds of reports apart


def compare(chosen: Chosen, methods: Sequence[str] | None, text: str, seeds: int, workdir: str, command: str,
            page: plots.Page | None = None) -> str:
    """Trains all runs of a comparison over values and writes its report into the folder; returns the table.

    Args:
      chosen: the config.
      methods: METHOD, METHOD:MODALITY, METHOD+OPTION=VALUE; None: those that the config's file names.
      text: OPTION=VALUE,VALUE,...
      seeds: runs of each.
      workdir: the folder, "": one under runs/.
      command: what makes the report again.
      page: of paper, to draw the plots for it too.

    Raises:
      UserError: whatever would stop one of the runs.
      FloatingPointError: all diverged.
    """
    config = chosen.config
    check_counts(config)
    option, texts = parse(text)
    if option in chosen.overrides:
        raise UserError(f"--vary sets {option}; leave out --config.{option}")
    if config.data.folds:
        raise UserError(f"--vary does not go with data.folds={config.data.folds}; leave it out")
    folder = folders.workdir(workdir, f"compare_{folders.data_name(config)}_{option.rpartition('.')[2]}")

    def config_for(value: Any, method: str) -> Config:
        return set_option(configs.config_for(chosen, method), option, by_value[value])[0]

    methods = methods_of(chosen, methods)
    first, _, _ = variants.parse(methods[0]) if methods else ("", "", {})
    base = configs.config_for(chosen, variants.trained(first)) if option.startswith("method.") else config
    typed = [set_option(base, option, text) for text in texts]
    by_value = dict(sorted(zip((value for _, value in typed), texts)))
    if len(by_value) < len(texts):
        raise UserError(f"--vary={text} has a value twice; name each once")
    once = data.load(config.data) if not option.startswith("data.") else None
    datasets = {value: once or data.load(set_option(config, option, text)[0].data)
                for value, text in by_value.items()}
    runs, results = make_over(datasets, config_for, methods, seeds, folder,
                              lambda value: f"{option.rpartition('.')[2]}_{name(value)}".replace("/", "%2F"))
    learned = datasets[min(datasets)]
    if config.stream.kind:
        learned, _ = make_stream(config.stream, learned)
    table = report.write(results, option, learned, folder, command, config.stream.kind, page, config.task)
    return finish_over(table, folder, runs, results)


def parse(text: str) -> tuple[str, list[str]]:
    """(option, values as text) of OPTION=VALUE,VALUE,...

    Raises:
      UserError: another form, fewer than two values, too many, or an option that cannot be varied.
    """
    option, _, listed = text.partition("=")
    values = [value.strip() for value in listed.split(",")]
    if not option or not all(values):
        raise UserError(f"--vary={text}; expected OPTION=VALUE,VALUE, as in data.audio_rate=2000,8000")
    if len(values) < 2:
        raise UserError(f"--vary={text} has one value; expected two or more, or --config.{text}")
    if len(values) > MOST["seeds"]:
        raise UserError(f"--vary={option} has {len(values)} values; expected at most {MOST['seeds']}")
    if option in OF_RUNS:
        raise UserError(f"--vary={text}: {option} is not varied by this option; see --seeds and --folds")
    return option, values


def set_option(config: Config, option: str, text: str) -> tuple[Config, Any]:
    """The config with the option set from text, by its type; and its value, a number or text.

    Raises:
      UserError: there is no such option, or the text is no value of it.
    """
    config = replace(config, {})
    *sections, last = option.split(".")
    section: Any = config
    for key in sections:
        known = section if isinstance(section, Mapping) else vars(section)
        if key not in known:
            raise UserError(f"--vary={option}: there is no {key!r}{suggest(key, known)}")
        section = known[key]
    known = section if isinstance(section, Mapping) else vars(section)
    if not isinstance(known.get(last, ""), READABLE) or isinstance(section, Mapping) or not sections:
        raise UserError(f"--vary={option}: expected an option that is a number, text, true or false")
    variants.set_option(section, last, text, "--vary")
    value = getattr(section, last)
    return config, text if isinstance(value, (bool, str)) else value


def check_alone(others: Mapping[str, Any]) -> None:
    """Raises UserError for other options of `compare`, here by name, that do not go with values."""
    for option, value in others.items():
        if value:
            raise UserError(f"--vary does not go with --{option}; leave it out" + (
                ", or vary method.capacity" if option == "capacities" else ""))
