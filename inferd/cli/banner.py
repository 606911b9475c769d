"""Texts of `inferd serve` on the terminal: the banner of a server that is ready, and warnings of its start."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from rich.console import Console

from inferd.cli.output import command_line
from inferd.config import ServerConfig, data_dir
from inferd.errors import ConfigError, NotFoundError
from inferd.ledger import Store
from inferd.ledger.identity import find_key, stand_in_fault

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
    """Print the URL, the models and two snippets that work when pasted.

    The key is printed only by the start that created it, and only on a terminal, not into a log. The snippets read it
    from its file.

    Args:
        deployments: names, and whether each is free.
        new_key: key that this start created.
    """
    base_url = f"{scheme}://{_authority(listener)}/v1"
    key_file = folder / KEY_FILE
    model = next(iter(deployments), "MODEL")
    offered = [f"{name} (free for all teams)" if is_free else name for name, is_free in deployments.items()]
    console.print(f"\n[bold]inferd is ready[/]: {base_url}\n")
    console.print("Models:  " + (", ".join(offered) or "none: \\[deployments] in models.toml is empty"))
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
        # rich would wrap and style a line that is to be pasted.
        console.file.write(snippet)
    console.print("\n[dim]# To create a team, in another terminal[/]")
    option = None if folder == data_dir(None) else folder
    console.file.write(f"{command_line(option, 'teams', 'create', 'NAME')}\n\n")
    console.file.flush()


def warn_of_plain_http(console: Console, listener: socket.socket, config: ServerConfig) -> None:
    """Warn if keys and prompts travel in plain text: no loopback address, no TLS here, no trusted proxy."""
    address = listener.getsockname()[0]
    if ip_address(address.partition("%")[0]).is_loopback or config.tls_certificate or config.trusted_proxies:
        return
    console.print(
        f"[bold white on red] WARNING [/] {address} is not a loopback address, and this is HTTP without TLS: keys, "
        "prompts and answers can be read on the network. Set [bold]tls_certificate[/] in \\[server] of models.toml, or "
        "put a proxy with TLS in front and name it in [bold]trusted_proxies[/]; see docs/security.md."
    )


def check_keyless(console: Console, store: Store, config: ServerConfig) -> None:
    """Warn if requests without a key act as a key that does not exist yet. Raise ConfigError if the key must not stand
    in for them."""
    if config.keyless is None:
        return
    try:
        with store.reading() as conn:
            key = find_key(conn, config.keyless)
    except NotFoundError:
        console.print(
            f"[bold white on red] WARNING [/] \\[server] keyless: there is no key {config.keyless}: requests without a "
            "key get a 401. Make a key with [bold]inferd keys create[/], and set keyless to its id."
        )
        return
    fault = stand_in_fault(key.scopes, is_trusted=key.trusted)
    if fault is not None:
        raise ConfigError(
            f"[server] keyless: the key {key.key_id} {fault}; name a key with the scope inference that has neither "
            "manage nor admin and is not trusted"
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
