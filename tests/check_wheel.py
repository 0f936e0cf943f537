"""Builds the wheel and uses it from another folder, in an environment that has neither this checkout nor torch.

Run as a script: ``python tests/check_wheel.py``.
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
USE = """
import importlib.util
import jax.numpy as jnp, numpy as np
from flax import nnx
import flax_attn
from flax_attn.networks.patch import NetCBAM

assert "site-packages" in flax_attn.__file__, flax_attn.__file__
for absent in ("torch", "torch_ref", "train", "tests", "einops"):
    assert importlib.util.find_spec(absent) is None, absent

network = NetCBAM(no_spatial=False, rngs=nnx.Rngs(0))
network.eval()
x = jnp.ones((2, 32, 40, 3))
p, attended = network(x)
flax_attn.to_torch(network, "weights.safetensors")
other = flax_attn.from_torch(NetCBAM(no_spatial=False, rngs=nnx.Rngs(1)), "weights.safetensors")
other.eval()
np.testing.assert_array_equal(p, other(x)[0])

open("weights.pt", "wb").close()
for use, extra in (
    (lambda: flax_attn.from_torch(network, "weights.pt"), "flax_attn[torch]"),
    (lambda: flax_attn.testing.compare(network, None), "flax_attn[torch]"),
):
    import flax_attn.testing
    try:
        use()
    except ImportError as error:
        assert extra in str(error), error
    else:
        raise AssertionError(f"expected an ImportError that names {extra}")
print("the wheel works on its own")
"""


def run(*command, cwd):
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def main():
    """Builds, inspects, installs and uses the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", work, ROOT, cwd=work)
        (wheel,) = work.glob("*.whl")
        packages = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        if {name for name in packages if not name.endswith(".dist-info")} != {"flax_attn"}:
            raise SystemExit(f"the wheel must hold flax_attn alone, got {sorted(packages)}")
        if "flax_attn/py.typed" not in zipfile.ZipFile(wheel).namelist():
            raise SystemExit("the wheel must hold flax_attn/py.typed")
        venv.create(work / "env", with_pip=True)
        python = work / "env" / "bin" / "python"
        quiet = ("--quiet", "--disable-pip-version-check")
        run(python, "-m", "pip", "install", *quiet, "-c", ROOT / "constraints.txt", wheel, cwd=work)
        run(python, "-c", USE, cwd=work)


if __name__ == "__main__":
    main()
