"""A configuration as it was written: the YAML text, the overrides from the command line, and where each key stands."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnpx.yamltree import KeyPath, composed, numbered, refused_below


class ConfigError(ValueError):
    """A configuration that cannot be run; ``problems`` has one line for each thing that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Source:
    """The plain data of a configuration, and the place in the file or on the command line that each part came from."""

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]
    overrides: dict[KeyPath, str]
    yaml: str
    """The configuration as it is run, overrides included."""

    def problem(self, keys: KeyPath, message: str) -> str:
        """One line: the place of ``keys``, or of what is nearest to it and was written, and ``message``."""
        message = " ".join(message.split())
        known = self.written(keys)
        where = ".".join(map(str, known))
        overridden = [prefix for prefix in self.overrides if known[: len(prefix)] == prefix]
        if overridden:
            return f"{self.overrides[max(overridden, key=len)]}: {where}: {message}"
        below = [override for place, override in self.overrides.items() if known and place[: len(known)] == known]
        if below and known not in self.lines:  # it is not in the file, but there since something in it was set
            return f"{below[0]}: {where}: {message}"
        line = next((self.lines[known[:n]] for n in range(len(known), 0, -1) if known[:n] in self.lines), None)
        place = f"{self.path}:{line}" if line else str(self.path)
        return f"{place}: {where}: {message}" if where else f"{place}: {message}"

    def written(self, keys: KeyPath) -> KeyPath:
        """The part of ``keys`` that is in the data; what a short form left out is passed over."""
        value: Any = self.data
        known: list[str | int] = []
        for key in keys:
            in_mapping = isinstance(value, dict) and key in value
            if in_mapping or (isinstance(value, list) and isinstance(key, int) and key < len(value)):
                value = value[key]
                known.append(key)
        return tuple(known)


def load(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read the YAML file ``path`` with OmegaConf and change it by ``overrides``, each ``"a.b.0=value"``.

    Raises :class:`ConfigError` when the file cannot be read, is no mapping in YAML, or an override has no place.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError, YAMLError
    from yaml.reader import ReaderError

    text = _text(path)
    try:
        root = composed(text)
        if root is None or root.tag != "tag:yaml.org,2002:map":
            what = "is empty" if root is None else f"holds a {_kind(root.tag)}"
            raise ConfigError([f"{path}: must hold a mapping with the keys of a run (key: value), but it {what}"])
        if refused := refused_below(root):
            raise ConfigError([f"{path}:{line}: {said}" if line else f"{path}: {said}" for line, said in refused])
        config = _spelled_out(OmegaConf.create(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = error.problem or str(error.context or "").rstrip(".")
        raise ConfigError([f"{path}:{line}: no valid YAML: {reason}"]) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        said = f"the character {_character(error)} has no place in YAML as it is; write it as an escape, in quotes"
        raise ConfigError([f"{path}:{line}: no valid YAML: {said}"]) from None
    except ConfigError:
        raise
    except (YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:  # the last: a number is too long
        raise ConfigError([f"{path}: no valid YAML: {_first_line(error)}"]) from None

    lines = numbered(root)
    placed: dict[KeyPath, str] = {}
    problems = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not all(key.split(".")):
            problems.append(f"{override}: an override is written key=value, as in explainers.0.n_iter=10")
            continue
        try:
            place = _place(key, OmegaConf.to_container(config))
        except ValueError as error:
            problems.append(f"{override}: {error}")
            continue
        try:
            if refused := refused_below(composed(value)):
                problems += [f"{override}: {said}" for _, said in refused]
                continue
            changed: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))
            # By the place: before OmegaConf 2.4 a negative index adds an item.
            way = (*place, *_keys(key)[len(place) :])
            OmegaConf.update(config, ".".join(map(str, way)), changed["value"], merge=False)
        except (YAMLError, OmegaConfBaseException, TypeError, ValueError) as error:
            problems.append(f"{override}: the value is no valid YAML: {_first_line(error)}")
            continue
        config = _spelled_out(config)
        placed[place] = override
    raw: Any = OmegaConf.to_container(config)
    source = Source(path, raw, lines, placed, text)
    problems += [source.problem(keys, said) for keys, said in _calls(raw, ())]
    if problems:
        raise ConfigError(problems)
    try:
        data: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        yaml = OmegaConf.to_yaml(config)
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        keys = _keys(str(getattr(error, "full_key", None) or ""))
        raise ConfigError([source.problem(keys, _lower_first(_first_line(error)))]) from None
    return Source(path, data, lines, placed, yaml)


def shown(given: object) -> str:
    """A value as a YAML writer knows it, at most some words long."""
    if given is None:
        return "empty (null)"
    text = str(given).lower() if isinstance(given, bool) else repr(given)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: must be a YAML file, but it is a folder"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: must be UTF-8 text, but byte {error.start} is none"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None


def _calls(value: Any, keys: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Where below ``value``, as YAML and overrides have made it, a resolver is called, or may be; and words for it.

    One such as oc.env would put secrets of whoever runs a configuration into its report.
    """
    if isinstance(value, str):
        # A reference inside of a reference may make up any text, the call of a resolver as well.
        if match := re.search(r"\$\{[^}]*?[$:{]", value, re.DOTALL):
            yield keys, f"{match[0]}...}} calls a resolver, or may; only references to keys, ${{key}}, are allowed"
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _calls(item, (*keys, key))


def _spelled_out(config: Any) -> Any:
    """The configuration with bare names of explainers and metrics as mappings, so that an override can add a parameter
    to one."""
    from omegaconf import OmegaConf

    data: Any = OmegaConf.to_container(config)
    for key in ("explainers", "metrics"):
        if isinstance(data.get(key), list):
            data[key] = [{"name": item} if isinstance(item, str) else item for item in data[key]]
    return OmegaConf.create(data)


def _keys(dotted: str) -> KeyPath:
    parts = [part for part in dotted.replace("[", ".").replace("]", "").split(".") if part]
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _kind(tag: str) -> str:
    return {"seq": "list", "str": "text", "int": "number", "float": "number"}.get(tag.rpartition(":")[2], "value")


def _place(key: str, data: Any) -> KeyPath:
    """The way that an override names; an item of a list that it counts from the end, as -1, by its number from 0.

    Where it leads into what is neither mapping nor list, and so makes a mapping of it, the way ends there.

    Raises:
        ValueError: a list does not have the item.
    """
    found: list[str | int] = []
    for part in _keys(key):
        if isinstance(data, list):
            number = re.fullmatch(r"-?[0-9]+", str(part))
            if not number or not -len(data) <= int(number[0]) < len(data):
                raise ValueError(f"the list has {len(data)} items, numbered from 0, but no item {str(part)!r}")
            part = int(number[0]) % len(data)
            data = data[part]
        elif isinstance(data, dict):
            part = part if part in data else str(part)  # keys that are added are text
            data = data.get(part, {})
        else:
            break
        found.append(part)
    return tuple(found)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _character(error: Any) -> str:
    return repr(chr(error.character) if isinstance(error.character, int) else error.character)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
