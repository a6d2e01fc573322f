"""Models of transformers, by the name they have on the Hugging Face hub or from a folder, with their tokenizers."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pnpx.suggest import nearest
from pnpx.zoo.registry import import_transformers

PREFIX = "transformers:"

_HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "Seq2SeqLM", "CausalLM", "MaskedLM")
"""What heads there are, as transformers names them in ``AutoModelFor...``."""
_TOKENIZER_FILES = ("*token*", "*vocab*", "*merges*", "*.model", "*.txt")
"""Patterns that match a file of any tokenizer, and none of a model."""


def load_pretrained(name: str, folder: Path | None = None, allow_code: bool = False) -> tuple[nn.Module, Any]:
    """A model with the head that its configuration names, on the CPU and in eval mode, and its tokenizer.

    Args:
        name: of a model on the hub, or the path of a folder that ``save_pretrained`` wrote.
        folder: where a relative path begins, if it is not one from the current folder.
        allow_code: whether code that comes with the model may run.

    Raises:
        ImportError: transformers is not installed.
        ValueError: in one line, if there is no such model, or something of it is missing or does not serve.
    """
    transformers = import_transformers("models of transformers")
    place = _place(name, folder)
    options: dict[str, Any] = {"trust_remote_code": allow_code}
    if place.is_dir():
        options["local_files_only"] = True
    where = str(place) if place.is_dir() else name
    config = _loaded(name, "configuration", transformers.AutoConfig, where, options)
    auto = _auto(transformers, config, name)
    with torch.random.fork_rng(devices=[]):  # some versions of transformers draw weights before they read them
        model, found = _loaded(name, "model", auto, where, {**options, "output_loading_info": True})
    missing = sorted(found.get("missing_keys", ()))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{name!r} lacks the weights {', '.join(map(repr, missing[:3]))}{more} of a {type(model).__name__}, which "
            "would be random; train it first, or use a model with that head"
        )
    tokenizer = _loaded(name, "tokenizer", transformers.AutoTokenizer, where, options)
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        # Without a file of a tokenizer, some versions of transformers make one up that knows no word.
        raise ValueError(f"{name!r} has no tokenizer; {_SAVE_IT}")
    return model.eval(), tokenizer


@contextmanager
def quietly(who: str) -> Iterator[None]:
    """Let transformers load without progress bars and advice, and then as it did before; ``who`` are to be loaded."""
    logging = import_transformers(who).utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


_SAVE_IT = "save it beside the model: tokenizer.save_pretrained(folder)"


def _place(name: str, folder: Path | None) -> Path:
    """The folder that ``name`` means, or would mean; ValueError if it is a path, and there is none."""
    if not name.strip() or "\0" in name:
        raise ValueError(f"a model of transformers is written '{PREFIX}name' or '{PREFIX}folder', not '{PREFIX}{name}'")
    path = Path(name).expanduser()
    places = [path] if path.is_absolute() or folder is None else [folder / path, path]
    for place in places:
        if place.is_dir():
            if not (place / "config.json").is_file():
                raise ValueError(f"the folder {str(place)!r} holds no model: it must have a config.json, as "
                                 "save_pretrained writes it")
            return place
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        beside = places[0].parent
        near = [str(item) for item in beside.iterdir() if item.is_dir()] if beside.is_dir() else []
        hint = f"; {nearest(str(places[0]), near)}" if near else ""
        raise ValueError(f"there is no folder {name!r}{hint}")
    return path


def _auto(transformers: Any, config: Any, name: str) -> Any:
    """The class ``AutoModelFor...`` that loads the first of the architectures that has a head."""
    own = getattr(config, "auto_map", None) or {}
    architectures = [str(one) for one in getattr(config, "architectures", None) or ()]
    for architecture in architectures:
        for head in _HEADS:
            auto = getattr(transformers, f"AutoModelFor{head}", None)
            if auto is None:
                continue
            known = auto._model_mapping.get(type(config), None)
            kinds = known if isinstance(known, (list, tuple)) else [known]
            brought = str(own.get(f"AutoModelFor{head}", "")).rpartition(".")[2]
            if architecture in [getattr(kind, "__name__", None) for kind in kinds] or architecture == brought:
                return auto
    what = f"is a {', '.join(architectures)}" if architectures else "does not name its architecture"
    raise ValueError(
        f"{name!r} {what}, and a model without a head for a task scores nothing; its config.json must name as "
        f"architecture one for {', '.join(_HEADS)}"
    )


def _loaded(name: str, what: str, auto: Any, where: str, options: dict[str, Any]) -> Any:
    """What an ``Auto...`` class of transformers loads; ValueError in one line if it cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return auto.from_pretrained(where, **options)
    except Exception as error:  # transformers, the hub and what they call raise of all kinds
        raise ValueError(_why(name, what, Path(where), error)) from error


def _why(name: str, what: str, where: Path, error: Exception) -> str:
    said, local = " ".join(str(error).split()), where.is_dir()
    if "trust_remote_code" in said:
        return f"the {what} of {name!r} brings code of its own; if you trust it, add --allow-code"
    reasons = [error, *_causes(error)]
    kinds = {kind.__name__ for reason in reasons for kind in type(reason).__mro__}
    unreachable = {"ConnectionError", "ConnectError", "TimeoutException", "Timeout", "OfflineModeIsEnabled"}
    if not local and (kinds & unreachable or "connect to" in said or "offline mode" in said):
        return (f"there is no folder {name!r}, and the Hugging Face hub cannot be reached, nor is the model in its "
                "cache here; give a folder, or go online once")
    unknown = {"RepositoryNotFoundError", "HFValidationError"}
    if not local and (kinds & unknown or "not a valid model identifier" in said):
        return f"there is neither a folder {name!r} nor a public model of that name on the Hugging Face hub"
    if what == "tokenizer" and local and not any(any(where.glob(pattern)) for pattern in _TOKENIZER_FILES):
        # Before version 5 transformers first asks for packages that read such files.
        return f"{name!r} has no tokenizer; {_SAVE_IT}"
    if what == "tokenizer" and not any(kind.startswith("Import") for kind in kinds):
        return f"{name!r} has no tokenizer that can be loaded: {_short(said)}; {_SAVE_IT}"
    return f"the {what} of {name!r} cannot be loaded: {type(error).__name__}: {_short(said)}"


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current = error.__cause__ or error.__context__
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _short(said: str) -> str:
    return said if len(said) <= 160 else said[:157] + "..."
