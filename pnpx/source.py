"""A configuration as it was written: the YAML text, the overrides from the command line, and where each key stands."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""The way to a value: ``("explainers", 0, "n_iter")``."""


_TAGS = frozenset(["str", "int", "float", "bool", "null", "map", "seq"])
_DIGITS = 4300  # more, Python does not read
MOST_REPEATED = 10_000
"""How many values the aliases of a file may stand for."""


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
        root = _composed(text)
        if root is None or root.tag != "tag:yaml.org,2002:map":
            what = "is empty" if root is None else f"holds a {_kind(root.tag)}"
            raise ConfigError([f"{path}: must hold a mapping with the keys of a run (key: value), but it {what}"])
        if refused := _refused(root):
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

    lines: dict[KeyPath, int] = {}
    _number(root, (), lines)
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
            if refused := _refused(_composed(value)):
                problems += [f"{override}: {said}" for _, said in refused]
                continue
            changed: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))
            OmegaConf.update(config, key, changed["value"], merge=False)
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


def _composed(text: str) -> Any:
    """The tree of nodes that YAML sees in ``text``; a date is text, as it is to OmegaConf."""
    from yaml import SafeLoader, compose

    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in SafeLoader.yaml_implicit_resolvers.items()
    }
    loader = type("Loader", (SafeLoader,), {"yaml_implicit_resolvers": resolvers})
    return compose(text, Loader=loader)  # type: ignore[no-untyped-call, unused-ignore]


def _refused(root: Any) -> list[tuple[int | None, str]]:
    """What below ``root`` has no place in a configuration: lines, from 1, where they are known, and words for it."""
    if root is None:
        return []
    if (line := _endless(root, [], set())) is not None:
        return [(line, "an alias (*name) stands inside of what it names; write out what is meant")]
    if (added := _size(root, {}) - _size(root, None)) > MOST_REPEATED:
        # Aliases of aliases are a few lines to write, and more than any memory holds to read.
        said = f"its aliases (*name) repeat {added} values, more than {MOST_REPEATED}; write out what is meant"
        return [(None, said)]
    return [(node.start_mark.line + 1, said) for node, said in _odd(root)]


def _endless(node: Any, above: list[int], done: set[int]) -> int | None:
    """The line, from 1, at which something below ``node`` begins that holds itself, by an alias; None if none does."""
    if id(node) in above:
        return int(node.start_mark.line) + 1
    if node.id == "scalar" or id(node) in done:
        return None
    done.add(id(node))
    parts = [part for pair in node.value for part in pair] if node.id == "mapping" else node.value
    lines = (_endless(part, [*above, id(node)], done) for part in parts)
    return next((line for line in lines if line is not None), None)


def _size(node: Any, known: dict[int, int] | None, seen: set[int] | None = None) -> int:
    """How many values there are below ``node``, and it: those of an alias each time, as ``known``; without it, once."""
    seen = set() if seen is None else seen
    if known is not None and id(node) in known:
        return known[id(node)]
    if id(node) in seen:  # an alias that is not to count
        return 0
    seen.add(id(node))
    parts = [part for pair in node.value for part in pair] if node.id == "mapping" else node.value
    size = 1 + (0 if node.id == "scalar" else sum(_size(part, known, seen) for part in parts))
    if known is not None:
        known[id(node)] = size
    return size


def _odd(node: Any) -> Iterator[tuple[Any, str]]:
    """What below ``node``, in a tree without ends in itself, is YAML, but nothing in a configuration; words for it."""
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in _TAGS:
        yield node, f"a value of the kind {node.tag!r} has no place here; write text, numbers, lists and mappings"
    elif kind == "int" and len(node.value) > _DIGITS:
        yield node, f"a number has {len(node.value)} digits; {_DIGITS} are the most"
    elif node.id == "scalar" and kind in ("bool", "int", "float") and not _readable(node):
        yield node, (
            f"{node.value!r:.40} is to be read as {kind}, but is none; write another value, or text in quotes and "
            "without a tag"
        )
    elif node.id == "mapping":
        for key, value in node.value:
            if key.id != "scalar" or key.tag.removeprefix("tag:yaml.org,2002:") not in ("str", "merge"):
                yield key, f"a key must be text, but is {key.value if key.id == 'scalar' else key.id!r:.40}; quote it"
            yield from _odd(value)
    elif node.id == "sequence":
        for part in node.value:
            yield from _odd(part)


def _readable(node: Any) -> bool:
    """Whether a number or bool, which may be one by its tag alone, is one."""
    from yaml.constructor import SafeConstructor

    try:
        SafeConstructor().construct_object(node)
    except (AttributeError, LookupError, ValueError):
        return False
    return True


def _number(node: Any, keys: KeyPath, lines: dict[KeyPath, int]) -> None:
    """Note the line, from 1, of everything below ``node`` under its key path."""
    if node.id == "mapping":
        for key, value in node.value:
            name = (*keys, key.value)
            _number(value, name, lines)
            lines[name] = key.start_mark.line + 1
    elif node.id == "sequence":
        for index, value in enumerate(node.value):
            name = (*keys, index)
            _number(value, name, lines)
            lines[name] = value.start_mark.line + 1


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
    """The configuration with bare names of explainers as mappings, so that an override can add a parameter to one."""
    from omegaconf import OmegaConf

    data: Any = OmegaConf.to_container(config)
    if isinstance(data.get("explainers"), list):
        data["explainers"] = [{"name": item} if isinstance(item, str) else item for item in data["explainers"]]
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
