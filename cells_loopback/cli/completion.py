"""Print the completion for a shell, profile names included.

examples:
  eval "$(cells-loopback completion bash)"  # in ~/.bashrc
  eval "$(cells-loopback completion zsh)"   # in ~/.zshrc, after compinit
  cells-loopback completion fish | source   # in config.fish
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the argument."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Print the shell's code."""
    from argcomplete.shell_integration import shellcode

    code = shellcode(["cells-loopback"], shell=args.shell)
    args.console.result(code.rstrip("\n"))
    return 0
