"""The faults of ``scripts/tools/mutants.py`` can be put into the current code."""

import runpy

from ..workflow.conftest import ROOT


def test_every_fault_fits_and_is_python():
    tool = runpy.run_path(str(ROOT / "scripts/tools/mutants.py"))
    faults = tool["faults"](ROOT)
    assert len(faults) == len(set(faults)) > 0
    for fault in faults:
        text = (ROOT / fault.path).read_text()
        compile(text.replace(fault.old, fault.new), fault.path, "exec")
        assert fault.old != fault.new and "\n" not in fault.old + fault.new, fault
        assert tool["tests_of"](ROOT, fault.module).is_file()
