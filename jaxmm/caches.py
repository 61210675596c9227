"""Cache folders, also for machines without a home folder or a writable cache."""
import atexit
import os
import pathlib
import shutil
import tempfile

# Libraries that need a writable folder when they are imported: the variable that names it, and where
# they look by default, as (variable of the base folder, its default).
LIBRARIES = {"MPLCONFIGDIR": ("XDG_CONFIG_HOME", "~/.config")}


def cache_folder() -> pathlib.Path:
    """`$JAXMM_CACHE`, else `$XDG_CACHE_HOME/jaxmm`, else `~/.cache/jaxmm`."""
    if folder := os.environ.get("JAXMM_CACHE"):
        return pathlib.Path(os.path.expanduser(folder))
    return _base("XDG_CACHE_HOME", "~/.cache") / "jaxmm"


def is_writable(folder: pathlib.Path) -> bool:
    """Whether files can be made in the folder, which is made if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def give_libraries_folders() -> None:
    """Gives a folder to each library that would otherwise not find a writable one.

    It is in the cache folder or, if that is not writable either, a temporary folder that is removed
    at exit. If there is no home folder, as in some containers, a temporary folder takes its place. If
    there is no place for temporary files, a folder in the cache folder does.

    Raises:
      OSError: there is no writable folder at all.
    """
    try:
        tempfile.gettempdir()
    except OSError as error:
        folder = (cache_folder() / "tmp").absolute()
        if not is_writable(folder):
            raise OSError("no folder for temporary files or caches is writable; name one by TMPDIR "
                          "or JAXMM_CACHE") from error
        os.environ["TMPDIR"] = str(folder)
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = str(_temporary_folder())
    for variable, where in LIBRARIES.items():
        if variable not in os.environ and not is_writable(_base(*where)):
            folder = (cache_folder() / variable.lower()).absolute()
            os.environ[variable] = str(folder if is_writable(folder) else _temporary_folder())


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, if it is writable, for the next start.

    Where jax has a folder for them already, it stays that one.
    """
    import jax
    if jax.config.jax_compilation_cache_dir:
        return
    folder = cache_folder() / "xla"
    if not is_writable(folder):
        from absl import logging
        logging.warning("%s is not writable, so every start compiles again; name another folder by "
                        "JAXMM_CACHE", folder)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _base(variable: str, default: str) -> pathlib.Path:
    return pathlib.Path(os.path.expanduser(os.environ.get(variable) or default))


def _temporary_folder() -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxmm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
