"""`import flax_attn` is light: it loads what `import flax.nnx` loads."""

import json
import subprocess
import sys

HEAVY = ("torch", "matplotlib", "tensorflow", "orbax", "grain", "einops", "safetensors", "tensorflow_datasets")


def modules_after(statement):
    code = f"import sys, json; {statement}; print(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    return set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))


def test_import_loads_no_package_beyond_flax():
    added = modules_after("import flax_attn") - modules_after("import flax.nnx") - {"flax_attn"}
    assert not added & set(HEAVY)
    # What is left are parts of the standard library.
    assert added <= set(sys.stdlib_module_names)


def test_the_harness_imports_torch_when_it_compares_and_not_before():
    added = modules_after("import flax_attn.testing") - modules_after("import flax.nnx")
    assert not added & set(HEAVY)
