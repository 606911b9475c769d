"""`[models.KEY]` of models.toml: a GGUF file, where it lies, and how the engine runs it."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from inferd.config.kv_memory import MAX_SEQUENCES, KVLayout, KVMemory, plan_kv_memory
from inferd.config.toml_table import MAX_TOKENS, TomlTable, existing_file, quoted
from inferd.errors import ConfigError

MODEL_KEYS = (
    "source",
    "max_context",
    "n_parallel",
    "kv_cells",
    "kv_layout",
    "n_ubatch",
    "n_threads",
    "n_gpu_layers",
    "host_cache_mib",
    "max_step_ms",
    "speculation",
    "chat_template",
    "pooling",
)
POOLINGS = ("mean", "cls", "last", "rank")
"""How the rows of an input become its vector or scores; llama-server's words."""

_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REPO_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_GGUF_MAGIC = b"GGUF"
_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MODEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelConfig:
    """One engine: a GGUF file, and how it is run.

    Attributes:
        key: name in models.toml.
        source: the GGUF file; it existed when the configuration was read.
        source_text: `source` as written in models.toml.
        max_context: maximum tokens of a sequence, prompt and completion together.
        n_parallel: maximum number of sequences decoded together.
        kv_cells: KV cells of all sequences together; None: `max_context` for each of `n_parallel`.
        kv_layout: how sequences share the cells.
        n_ubatch: maximum rows of a step.
        n_threads: compute threads; None: the CPUs that the process may use.
        n_gpu_layers: layers on the GPU; -1: all, 0: none.
        host_cache_mib: host RAM for offloaded prefixes; 0: none.
        max_step_ms: target duration of a step while sequences decode; None: the default of the backend.
        speculation: whether tokens are drafted while a single request runs.
        chat_template: Jinja text that replaces the template of the GGUF; None: no replacement.
        chat_template_path: file of `chat_template`.
        pooling: one of POOLINGS, for a GGUF that lacks it; None: what the GGUF says.
    """

    key: str
    source: Path
    source_text: str
    max_context: int = 4096
    n_parallel: int = 8
    kv_cells: int | None = None
    kv_layout: KVLayout = KVLayout.AUTO
    n_ubatch: int = 512
    n_threads: int | None = None
    n_gpu_layers: int = -1
    host_cache_mib: int = 1024
    max_step_ms: int | None = None
    speculation: bool = False
    chat_template: str | None = None
    chat_template_path: Path | None = None
    pooling: str | None = None

    @property
    def kv_memory(self) -> KVMemory:
        """KV memory by `max_context`, `n_parallel`, `kv_cells` and `kv_layout`. Raises ConfigError."""
        return plan_kv_memory(
            self.kv_layout,
            max_context=self.max_context,
            n_parallel=self.n_parallel,
            kv_cells=self.kv_cells,
            n_ubatch=self.n_ubatch,
        )


def model_config(table: TomlTable, environ: Mapping[str, str]) -> ModelConfig:
    """Return `[models.KEY]`. Raises ConfigError."""
    if not _MODEL_KEY.fullmatch(table.name):
        raise ConfigError(f"{table.path}: [models] {quoted(table.name)}: a name has letters, digits, '.', '_' and '-'")
    source_text = table.require("source", str)
    source = table.attempt("source", lambda: resolve_source(source_text, folder=table.folder, environ=environ))
    template_path, template = table.file("chat_template"), None
    if template_path is not None:
        template = table.attempt("chat_template", lambda: template_path.read_bytes().decode("utf-8"))
    model = ModelConfig(
        key=table.name,
        source=source,
        source_text=source_text,
        max_context=table.integer("max_context", ModelConfig.max_context, 16, MAX_TOKENS),
        n_parallel=table.integer("n_parallel", ModelConfig.n_parallel, 1, MAX_SEQUENCES),
        kv_cells=table.integer("kv_cells", None, 16, MAX_TOKENS * MAX_SEQUENCES),
        kv_layout=_kv_layout(table),
        n_ubatch=table.integer("n_ubatch", ModelConfig.n_ubatch, 16, 8192),
        n_threads=table.integer("n_threads", None, 1, 1024),
        n_gpu_layers=table.integer("n_gpu_layers", ModelConfig.n_gpu_layers, -1, 10_000),
        host_cache_mib=table.integer("host_cache_mib", ModelConfig.host_cache_mib, 0, 2**24),
        max_step_ms=table.integer("max_step_ms", None, 1, 60_000),
        speculation=table.get("speculation", bool) is True,
        chat_template=template,
        chat_template_path=template_path,
        pooling=_pooling(table),
    )
    if model.n_ubatch < model.n_parallel:
        raise table.error("n_ubatch", f"must be at least n_parallel ({model.n_parallel}), got {model.n_ubatch}")
    try:
        _ = model.kv_memory
    except ConfigError as error:
        raise table.error("kv_cells", error.message) from error
    return model


def _kv_layout(table: TomlTable) -> KVLayout:
    text = table.get("kv_layout", str)
    if text is None:
        return KVLayout.AUTO
    if text not in list(KVLayout):
        raise table.error("kv_layout", f"must be one of {', '.join(KVLayout)}, got {quoted(text)}")
    return KVLayout(text)


def _pooling(table: TomlTable) -> str | None:
    text = table.get("pooling", str)
    if text is not None and text not in POOLINGS:
        raise table.error("pooling", f"must be one of {', '.join(POOLINGS)}, got {quoted(text)}")
    return text


def resolve_source(source: str, *, folder: Path, environ: Mapping[str, str]) -> Path:
    """Return the existing GGUF file that `source` names.

    Args:
        source: `PATH` (relative to `folder`), `package:PKG/FILE` or `hf:ORG/NAME/FILE`.
        folder: folder of models.toml.
        environ: environment; `HF_HUB_CACHE`, `HF_HOME` and `XDG_CACHE_HOME` move the Hugging Face cache.

    Raises:
        ConfigError: there is no such file or package, or it is no GGUF file; the message lacks file, table and key.
    """
    if source.startswith("package:"):
        path = _file_in_package(source)
    elif source.startswith("hf:"):
        path = _file_in_hf_cache(source, environ)
    elif "://" in source:
        raise ConfigError(f"{source} is a URL, and must be a file: download it and write its path, or hf:ORG/NAME/FILE")
    else:
        path = existing_file(source, folder)
    shard = _SHARD.fullmatch(path.name)
    if shard is not None and int(shard["number"]) != 1:
        which = f"shard {int(shard['number'])} of {int(shard['count'])}"
        raise ConfigError(f"{path} is {which} of a split model: write the first shard, {shards_of(path)[0].name}")
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


def _relative(file: str, source: str) -> Path:
    path = Path(file)
    if not file or path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{source!r} must end in the path of a file inside it")
    return path


def _file_in_package(source: str) -> Path:
    """Return a file of an installed package, without importing it: `find_spec` of a top-level name runs no code."""
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
    raise ConfigError(f"the installed package {package!r} has no file {file!r}")


def _hf_cache(environ: Mapping[str, str]) -> Path:
    """Return the cache folder, by the rules of constants.py of huggingface_hub."""
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def _file_in_hf_cache(source: str, environ: Mapping[str, str]) -> Path:
    """Return a file of the Hugging Face cache: of the commit of `refs/main`, else of the newest commit that has it.

    Layout: `models--ORG--NAME/{refs/main,snapshots/COMMIT/FILE}`.
    """
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
