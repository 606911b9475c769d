"""What `inferd serve` shows once it is ready: where it is, who may call it, and two snippets that work when pasted."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from rich.console import Console

from inferd.cli.output import command_line
from inferd.config.models_file import data_dir
from inferd.config.server import ServerConfig

KEY_FILE = "default.key"

_ANY_ADDRESS = ("0.0.0.0", "::")


def print_banner(
    console: Console,
    listener: socket.socket,
    folder: Path,
    deployments: Mapping[str, bool],
    new_key: str | None,
    scheme: str = "http",
) -> None:
    """The key itself is shown only by the start that made it, and only on a terminal: a log is no place for it. The
    snippets read it from its file.

    Args:
        deployments: by name, whether they have no price, which nobody is to overlook.
    """
    base_url = f"{scheme}://{_authority(listener)}/v1"
    key_file = folder / KEY_FILE
    model = next(iter(deployments), "MODEL")
    offered = [f"{name} (free, for every team)" if is_free else name for name, is_free in deployments.items()]
    console.print(f"\n[bold]inferd is ready[/]: {base_url}\n")
    console.print("Models:  " + (", ".join(offered) or "none: \\[deployments] of models.toml has none"))
    if new_key is not None and console.is_terminal:
        console.print(f"API key: [bold]{new_key}[/]\n         not shown again; it is in {key_file}")
    elif key_file.exists():
        console.print(f"API key: kept in {key_file}")
    else:
        console.print("API key: `inferd keys create --team TEAM` makes one; then: export OPENAI_API_KEY=sk-inferd-...")
    has_file = key_file.exists()
    shell_key = f"$(cat {shlex.quote(str(key_file))})" if has_file else "$OPENAI_API_KEY"
    python_key = f"open({str(key_file)!r}).read().strip()" if has_file else 'os.environ["OPENAI_API_KEY"]'
    for title, snippet in (
        ("curl", _curl(base_url, shell_key, model)),
        ("Python (pip install openai)", _python(base_url, python_key, model)),
    ):
        console.print(f"\n[dim]# {title}[/]")
        # Not through rich: a pasted line must not be wrapped or styled.
        console.file.write(snippet)
    console.print("\n[dim]# To manage it, in another terminal[/]")
    option = None if folder == data_dir(None) else folder
    console.file.write(f"{command_line(option, 'teams', 'create', 'NAME')}\n\n")
    console.file.flush()


def warn_of_plain_http(console: Console, listener: socket.socket, config: ServerConfig) -> None:
    """Keys and prompts readable on the way, unless TLS ends here or, as far as we are told, at a proxy."""
    address = listener.getsockname()[0]
    if ip_address(address.partition("%")[0]).is_loopback or config.tls_certificate or config.trusted_proxies:
        return
    console.print(
        f"[bold white on red] WARNING [/] {address} is not a loopback address, and this is HTTP without TLS: everyone "
        "on the way can read keys, prompts and answers. Set [bold]tls_certificate[/] in \\[server] of models.toml, or "
        "put a proxy that speaks TLS before it and name it in [bold]trusted_proxies[/]; see docs/security.md."
    )


def _authority(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in _ANY_ADDRESS:
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _curl(base_url: str, key: str, model: str) -> str:
    return f"""\
curl {base_url}/chat/completions \\
  -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Why is the sky blue?"}}], "max_tokens": 100}}'
"""


def _python(base_url: str, key: str, model: str) -> str:
    imports = "import os\n\n" if key.startswith("os.") else ""
    return f"""\
{imports}from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key={key})
stream = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Why is the sky blue?"}}],
    max_tokens=100,
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
"""
