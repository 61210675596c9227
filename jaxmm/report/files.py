"""Files that are whole or not there."""
import pathlib


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file so that `path` is at any moment absent, the old file or the new one."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)
