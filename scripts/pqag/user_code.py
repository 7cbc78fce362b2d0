"""The files of the user that a study names: functions by entry points, and files of weights, each identified by its sha256.

An entry point is written ``module:function``. The module is one Python file in the folder where the workflow runs, with dots for folders:
``mine.attack:run`` is the function ``run`` of ``mine/attack.py``. It may import installed packages and this library, but no other file of
the user, so its sha256 covers all of it. Only ``function`` runs the file. Weights named ``zoo:NAME`` are those of a victim that ships with
the project, in ``zoo/NAME``, and ``zoo:NAME/16bits`` those that were trained with a codebook of 16 bits. Needs only the standard library.
"""

import difflib
import hashlib
import logging
import sys
import traceback
import types
from collections.abc import Callable, Iterable
from pathlib import Path

from pqag import files
from pqag.errors import UserError
from pqag.names import is_entry_point, is_of_zoo

#: The trained victims that ship with the project: a folder each, with the weights and a card that says where they come from.
ZOO = Path(__file__).resolve().parents[2] / "zoo"


def file_of(name: str) -> Path:
    """Return the file of an entry point or of a path of a checkpoint, relative to the folder where the workflow runs; or of the zoo."""
    if is_of_zoo(name):
        victim, _, bits = name.removeprefix("zoo:").partition("/")
        return ZOO / victim / f"{bits or 'weights'}.safetensors"
    return Path(*name.split(":")[0].split(".")).with_suffix(".py") if is_entry_point(name) else Path(name)


def digests(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the sha256 of the file of each entry point or checkpoint, by name, without running anything.

    ``named`` are pairs of a key of the study and its value. Raises UserError, with the key, if the file does not exist.
    """
    found = {}
    for key, name in named:
        path = file_of(name)
        if is_of_zoo(name):
            check_of_zoo(key, name)
        if not path.is_file():
            what = f"{path}, the file of {name}," if is_entry_point(name) else str(path)
            raise UserError(f"{key}: {what} does not exist; it must be in {Path.cwd()}, where the workflow runs")
        try:
            found[name] = files.sha256(path)
        except OSError as error:
            raise UserError(f"{key}: {path} cannot be read: {error.strerror}") from None
    return found


def check_of_zoo(key: str, name: str) -> None:
    """Raise UserError, with the key of the study, if the zoo has no victim of this name, or if its weights are not those of its card."""
    path, known = file_of(name), sorted(f"zoo:{card.parent.name}" for card in ZOO.glob("*/card.json"))
    victim, _, wanted = name.partition("/")
    if victim not in known:
        near = difflib.get_close_matches(victim, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
        raise UserError(f"{key}: {victim} is not in the zoo; {hint}")
    there = files.read_json(path.with_name("card.json"))["files"]
    if path.name not in there:
        if "weights.safetensors" in there:
            raise UserError(f"{key}: {victim} was trained without a codebook, so leave out what asks for one: the quantizer pqn, or bits")
        lengths = ", ".join(sorted(file.removesuffix("bits.safetensors") for file in there))
        asked = f"but {wanted.removesuffix('bits')} bits are wanted" if wanted else "but the quantizer of the model is another"
        raise UserError(f"{key}: {victim} was trained with its codebook, for codes of these bits: {lengths}; {asked}")
    if not path.is_file() or files.sha256(path) != there[path.name]:
        raise UserError(f"{key}: the weights of {name} are not those that its card describes: restore {path}")


def function(name: str, sha256: str) -> Callable:
    """Run the file of an entry point and return its function. The file must still have the ``sha256`` from when the study was read.

    Raises UserError if the file has changed, cannot be run (the log has the traceback), or has no such function.
    """
    path = file_of(name)
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} is missing or was changed after the run began: start again")
    module = types.ModuleType(f"brought_{path.with_suffix('').as_posix().replace('/', '_')}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look up their module here
    try:
        exec(compile(content, path, "exec"), module.__dict__)
    except Exception as error:
        logging.getLogger("pqag").info("%s", traceback.format_exc())
        words = " ".join(str(error).split()) or "no message"
        raise UserError(f"{path} cannot be loaded for {name}: {type(error).__name__}: {words}") from error
    wanted = name.split(":")[1]
    if not callable(getattr(module, wanted, None)):
        there = [key for key, value in vars(module).items() if callable(value) and getattr(value, "__module__", "") == module.__name__]
        raise UserError(f"{path} has no function {wanted}, which {name} names; it has {', '.join(there) or 'none'}")
    return getattr(module, wanted)
