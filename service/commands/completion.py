"""`depthlens completion`: scripts for shells, written from the parser itself."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.commands import Options, parser

EXAMPLES: Final = """examples:
  eval "$(depthlens completion bash)"                          in ~/.bashrc
  eval "$(depthlens completion zsh)"                           in ~/.zshrc, after compinit
  depthlens completion fish > ~/.config/fish/completions/depthlens.fish"""


def arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The shell."""
    parser.add_argument("shell", choices=list(_SCRIPTS), help="whose script to print")


def run(options: Options) -> int:
    """Print the script."""
    print(_SCRIPTS[options["shell"]](_commands(parser())))
    return 0


@dataclass(frozen=True, slots=True)
class _Option:
    names: tuple[str, ...]
    about: str
    takes_value: bool
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    about: str
    options: tuple[_Option, ...]
    words: tuple[str, ...]
    """What its first argument can be, where that is not a file."""


def _commands(root: argparse.ArgumentParser) -> list[_Command]:
    return [_command(name, below, about) for name, below, about in _below(root)]


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}
            yield from ((name, below, about[name]) for name, below in action.choices.items())


def _command(name: str, parser: argparse.ArgumentParser, about: str) -> _Command:
    options = tuple(
        _Option(
            names=tuple(action.option_strings),
            about=_first_sentence((action.help or "") % {"default": action.default, "prog": parser.prog}),
            takes_value=action.nargs != 0,
            choices=tuple(action.choices or ()),
        )
        for action in parser._actions
        if action.option_strings
    )
    words = [below for below, _, _ in _below(parser)]
    words += [str(word) for action in parser._actions if not action.option_strings for word in _words(action)]
    return _Command(name, about, options, tuple(dict.fromkeys(words)))


def _words(action: argparse.Action) -> tuple[str, ...]:
    return tuple(action.choices or ()) if not isinstance(action, argparse._SubParsersAction) else ()


def _first_sentence(text: str) -> str:
    """One line without what a shell might read."""
    line = re.split(r"[.;:] ", " ".join(text.split()))[0]
    return "".join(letter for letter in line if letter not in "'\"`$\\[]:")


_BASH: Final = """# depthlens: eval "$(depthlens completion bash)"
_depthlens() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= index words=
    [[ $word == "=" ]] && word=
    [[ $before == "=" ]] && before=${{COMP_WORDS[COMP_CWORD-2]}}
    for ((index = 1; index < COMP_CWORD; index++)); do
        [[ ${{COMP_WORDS[index]}} == -* ]] || {{ command=${{COMP_WORDS[index]}}; break; }}
    done
    COMPREPLY=()
    case "$command $before" in
{values}
    esac
    case "$command" in
{commands}
        *) words="{names} --help --version" ;;
    esac
    if [[ $word == -* || -z $command || $index -eq $((COMP_CWORD - 1)) ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
        [[ $word == -* ]] || COMPREPLY=($(printf '%s\\n' "${{COMPREPLY[@]}}" | grep -v '^-'))
    fi
}}
complete -o default -o bashdefault -F _depthlens depthlens"""


def _bash(commands: list[_Command]) -> str:
    values, lines = [], []
    for command in commands:
        for option in command.options:
            pattern = "|".join(f'"{command.name} {name}"' for name in option.names)
            if option.choices:
                words = " ".join(option.choices)
                values.append(f'        {pattern}) COMPREPLY=($(compgen -W "{words}" -- "$word")); return ;;')
            elif option.takes_value:
                values.append(f"        {pattern}) return ;;")
        words = " ".join([*command.words, *(name for option in command.options for name in option.names)])
        lines.append(f'        {command.name}) words="{words}" ;;')
    names = " ".join(command.name for command in commands)
    return _BASH.format(values="\n".join(values), commands="\n".join(lines), names=names)


_ZSH: Final = """#compdef depthlens
# eval "$(depthlens completion zsh)"
_depthlens() {{
    local -a commands=(
{names}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT -= 1 ))
    case $command in
{commands}
    esac
}}
compdef _depthlens depthlens"""


def _zsh(commands: list[_Command]) -> str:
    lines = []
    for command in commands:
        specs = []
        for option in command.options:
            value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
            specs += [f"'{name}[{option.about}]{value if option.takes_value else ''}'" for name in option.names]
        specs.append(f"'1:word:({' '.join(command.words)})'" if command.words else "'*:photo:_files'")
        lines.append(f"        {command.name}) _arguments {' '.join(specs)} ;;")
    names = "\n".join(f"        '{command.name}:{_first_sentence(command.about)}'" for command in commands)
    return _ZSH.format(names=names, commands="\n".join(lines))


def _fish(commands: list[_Command]) -> str:
    lines = ["# depthlens completion fish > ~/.config/fish/completions/depthlens.fish"]
    for command in commands:
        about = _first_sentence(command.about)
        lines.append(f"complete -c depthlens -n __fish_use_subcommand -f -a {command.name} -d '{about}'")
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        if command.words:
            lines.append(f"complete -c depthlens {seen} -f -a '{' '.join(command.words)}'")
        for option in command.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r" if option.takes_value else ""
            lines.append(f"complete -c depthlens {seen} {names}{value} -d '{option.about}'")
    return "\n".join(lines)


_SCRIPTS: Final = {"bash": _bash, "zsh": _zsh, "fish": _fish}
