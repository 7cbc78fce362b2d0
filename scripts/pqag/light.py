"""Loads torchvision without the compiler of torch; to be imported before anything of torchvision, as it has no effect later.

One module of torchvision loads ``torch._dynamo`` to ask whether a device can be compiled for, when an operation that no network of a study
has is called. Loading it takes as long as all of torch, at the start of every job.
"""

import contextlib
import importlib
import sys
import types

_NAME = "torch._dynamo.utils"

if _NAME not in sys.modules:
    _deferred = types.ModuleType(_NAME)
    _deferred.is_compile_supported = lambda device: importlib.import_module(_NAME).is_compile_supported(device)
    sys.modules[_NAME] = _deferred
    try:
        with contextlib.suppress(ImportError):  # another version may need more of it, and loads it itself
            importlib.import_module("torchvision.ops.roi_align")
    finally:
        del sys.modules[_NAME]
